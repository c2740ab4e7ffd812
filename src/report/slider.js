for (const gallery of document.querySelectorAll(".gallery")) {
  const slider = gallery.querySelector(".slider");
  if (!slider) continue;
  const [range, select] = [slider.querySelector("input"), slider.querySelector("select")];
  let card = gallery.querySelector(".card");
  const show = () => {
    const copy = (side, model) => {
      const from = card.querySelector(`img[data-model="${model}"]`);
      const to = slider.querySelector(side);
      to.hidden = !from;
      if (from) [to.src, to.alt] = [from.src, from.alt];
    };
    copy(".before", 0);
    copy(".after", select.value);
    slider.querySelector(".prompt").textContent = card.querySelector("figcaption").firstChild.textContent;
    for (const one of gallery.querySelectorAll(".card")) one.classList.toggle("current", one === card);
  };
  const move = () => slider.style.setProperty("--at", range.value + "%");
  for (const one of gallery.querySelectorAll(".card")) {
    const choose = () => {
      card = one;
      show();
      slider.scrollIntoView({ block: "nearest" });
    };
    one.querySelector(".strip").addEventListener("click", choose);
    const button = one.querySelector(".compare");
    button.hidden = false;
    button.addEventListener("click", choose);
  }
  range.addEventListener("input", move);
  select.addEventListener("change", show);
  move();
  show();
  slider.hidden = false;
  gallery.classList.add("compared");
}
