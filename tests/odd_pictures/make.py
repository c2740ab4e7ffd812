"""Pictures, captions, tables and caches as they lie in real folders, odd ones above all, and what Pillow makes of them.

    python tests/odd_pictures/make.py

Writes `pictures/`, the pictures that can be decoded as `expected/NAME.png`, `skipped.json` with words of the reason for
each of the others, `tables/` and `caches/`. Made with Pillow 13.0.0 (libjpeg-turbo 3.2.0, littleCMS, libwebp), pyarrow
26.0.1, NumPy 2.4.6 and jpegtran 2.1.5 (Debian's libjpeg-turbo-progs). Names that are not UTF-8 and huge files are made by
the test itself.
"""

import io
import json
import random
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageOps

HERE = Path(__file__).parent
PICTURES, EXPECTED = HERE / "pictures", HERE / "expected"
WIDTH, HEIGHT = 24, 16
SKIPPED = {}


def pattern(width=WIDTH, height=HEIGHT):
    """Smooth colours."""
    picture = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            picture.putpixel((x, y), (40 + 8 * x, 30 + 10 * y, 220 - 4 * x - 5 * y))
    return picture


def photograph(width=61, height=47):
    """Strong edges between colours, with noise, on odd sides: where decoders differ most."""
    draw = random.Random(7)
    picture = Image.new("RGB", (width, height), (30, 60, 200))
    for _ in range(12):
        x, y, size = draw.randrange(width), draw.randrange(height), draw.randrange(3, 25)
        colour = tuple(draw.choice([0, 255, draw.randrange(256)]) for _ in range(3))
        ImageDraw.Draw(picture).ellipse([x - size, y - size, x + size, y + size], fill=colour)
    noise = Image.frombytes("RGB", picture.size, bytes(draw.randrange(24) for _ in range(3 * width * height)))
    return ImageChops.add(picture, noise)


def jpegtran(data, *options):
    return subprocess.run(["jpegtran", *options], input=data, capture_output=True, check=True).stdout


def put(name, data, expected=None, skipped=None, caption="a picture"):
    (PICTURES / name).write_bytes(data)
    if caption is not None:
        (PICTURES / name).with_suffix(".txt").write_text(caption)
    if skipped is not None:
        SKIPPED[name] = skipped
        return
    if expected is None:
        expected = Image.open(io.BytesIO(data))
    # Without the profile, which holds the time.
    expected.convert("RGB").save(EXPECTED / f"{name}.png", icc_profile=None)


def encoded(picture, kind, **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(bits, colour, rows, interlaced=0):
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def adam7(picture):
    rows = b""
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        for y in range(y0, HEIGHT, dy):
            rows += b"\0" + b"".join(bytes(picture.getpixel((x, y))) for x in range(x0, WIDTH, dx))
    return raw_png(8, 2, rows, 1)


def display_p3():
    """A matrix profile with the primaries of Display P3, adapted to D50, and a gamma of 2.2."""
    fixed = lambda *values: b"".join(struct.pack(">i", round(value * 65536)) for value in values)
    xyz = lambda *values: b"XYZ \0\0\0\0" + fixed(*values)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    text = b"text\0\0\0\0odd\0"
    desc = b"desc\0\0\0\0" + struct.pack(">I", 3) + b"P3\0" + bytes(4 + 4 + 2 + 1 + 67)
    desc += bytes(-len(desc) % 4)
    tags = [
        (b"desc", desc), (b"cprt", text), (b"wtpt", xyz(0.9642, 1.0, 0.8249)),
        (b"rXYZ", xyz(0.51512, 0.24120, -0.00105)), (b"gXYZ", xyz(0.29198, 0.69225, 0.04189)),
        (b"bXYZ", xyz(0.15710, 0.06657, 0.78407)), (b"rTRC", curve), (b"gTRC", curve), (b"bTRC", curve),
    ]
    table, data, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, value in tags:
        table += name + struct.pack(">II", at + len(data), len(value))
        data += value
    size = at + len(data)
    head = struct.pack(">I4s4s4s4s4s", size, b"\0\0\0\0", b"\x02\x10\0\0", b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(4 + 4 + 4 + 4 + 8 + 4)
    head += fixed(0.9642, 1.0, 0.8249) + bytes(128 - len(head) - 12)
    return head + table + data


def in_srgb(picture, profile):
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")


def jpegs():
    base = pattern()
    whole = encoded(base, "JPEG", quality=95, subsampling=0)
    put("plain.jpg", whole)
    put("progressive.jpg", encoded(base, "JPEG", quality=95, subsampling=0, progressive=True))
    for name in ["4:4:4", "4:2:2", "4:2:0", "4:1:1"]:
        for progressive in [False, True]:
            data = encoded(photograph(), "JPEG", quality=80, subsampling=name, progressive=progressive)
            put(f"photograph-{name.replace(':', '')}{'-progressive' * progressive}.jpg", data)
            if name == "4:2:2" and not progressive:
                put("photograph-440.jpg", jpegtran(data, "-rotate", "90"))
                put("arithmetic.jpg", jpegtran(data, "-arithmetic"))
                put("restarts.jpg", jpegtran(data, "-restart", "3B"))
    put("one-column.jpg", encoded(photograph(1, 17), "JPEG"))
    put("grey.jpg", encoded(base.convert("L"), "JPEG", quality=95))
    put("cut.jpg", whole[: len(whole) // 2], skipped="cut off")
    put("rubbish-after.jpg", whole + b"rubbish" * 20)
    put("name-of-a-jpeg.png", whole)
    at = whole.index(b"\xff\xc0")
    put("bits-12.jpg", whole[: at + 4] + b"\x0c" + whole[at + 5 :], skipped="12 bits")
    print_ = encoded(base.convert("CMYK"), "JPEG", quality=95)
    put("cmyk.jpg", print_)
    put("cmyk-progressive.jpg", encoded(photograph().convert("CMYK"), "JPEG", quality=80, progressive=True))
    # The Adobe segment says what the four channels are; Pillow only writes 0, CMYK.
    ycc = Image.merge("RGB", base.convert("CMYK").split()[:3]).convert("YCbCr")
    ycck = encoded(Image.merge("CMYK", [ImageOps.invert(c) for c in ycc.split()] + [Image.new("L", base.size, 30)]), "JPEG", quality=95)
    at = ycck.index(b"Adobe") + 11
    put("ycck.jpg", ycck[:at] + b"\x02" + ycck[at + 1 :])
    for turned in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turned
        data = encoded(base, "JPEG", quality=95, subsampling=0, exif=exif)
        put(f"orientation-{turned}.jpg", data, ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    put("corrupt-exif.jpg", encoded(base, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), Image.open(io.BytesIO(whole)))
    p3 = encoded(base, "JPEG", quality=95, subsampling=0, icc_profile=display_p3())
    put("display-p3.jpg", p3, in_srgb(Image.open(io.BytesIO(p3)), display_p3()))


def pngs():
    base = pattern()
    put("plain.png", encoded(base, "PNG"))
    wide = b"".join(
        b"\0" + b"".join(struct.pack(">3H", *(257 * value for value in base.getpixel((x, y)))) for x in range(WIDTH))
        for y in range(HEIGHT)
    )
    put("wide.png", raw_png(16, 2, wide), base)
    grey = b"".join(
        b"\0" + b"".join(struct.pack(">H", 2000 + 2500 * x) for x in range(WIDTH)) for _ in range(HEIGHT)
    )
    row = Image.new("L", (WIDTH, HEIGHT))
    row.putdata([(2000 + 2500 * x) >> 8 for _ in range(HEIGHT) for x in range(WIDTH)])
    put("wide-grey.png", raw_png(16, 0, grey), row)
    put("interlaced.png", adam7(base))
    palette = base.quantize(16)
    put("palette.png", encoded(palette, "PNG"))
    transparent = encoded(palette, "PNG", transparency=bytes([0, 128] + [255] * 14))
    put("palette-transparent.png", transparent, on_white(Image.open(io.BytesIO(transparent))))
    alpha = Image.linear_gradient("L").resize(base.size)
    hidden = Image.merge("RGBA", [*Image.new("RGB", base.size).split(), alpha])
    put("hidden-black.png", encoded(hidden, "PNG"), on_white(hidden))
    la = Image.merge("LA", [base.convert("L"), alpha])
    put("grey-alpha.png", encoded(la, "PNG"), on_white(la))
    put("animated.png", encoded(base, "PNG", save_all=True, append_images=[base.rotate(180)]), base)
    put("display-p3.png", encoded(base, "PNG", icc_profile=display_p3()), in_srgb(base, display_p3()))
    whole = encoded(base, "PNG")
    put("cut.png", whole[: len(whole) // 2], skipped="")
    put("one.png", encoded(pattern(1, 1), "PNG"))
    put("strip.png", encoded(Image.new("RGB", (30000, 1), (9, 99, 199)), "PNG"))
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    put("claims.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""), skipped="60000x60000")


def on_white(picture):
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)


def others():
    base = pattern()
    put("lossless.webp", encoded(base, "WEBP", lossless=True))
    put("lossy.webp", encoded(base, "WEBP", quality=95))
    put("photograph.webp", encoded(photograph(), "WEBP", quality=80))
    put("animated.webp", encoded(base, "WEBP", lossless=True, save_all=True, append_images=[base.rotate(180)]), base)
    whole = encoded(base, "WEBP", lossless=True)
    put("cut.webp", whole[: len(whole) // 2], skipped="")
    for kind, name in [("GIF", "a.gif"), ("BMP", "b.bmp"), ("TIFF", "c.tif")]:
        put(name, encoded(pattern(4, 4), kind), skipped=f"{kind}, which is not supported")
    put("d.avif", b"\0\0\0\x20ftypavif" + bytes(20), skipped="AVIF, which is not supported; convert")
    put("e.heic", b"\0\0\0\x20ftypheic" + bytes(20), skipped="HEIC, which is not supported")
    put("f.jxl", b"\xff\x0a" + bytes(20), skipped="JPEG XL, which is not supported")
    put("empty.png", b"", skipped="empty")
    put("text.png", b"not a picture", skipped="not a PNG, JPEG or WebP")


def captions():
    data = encoded(pattern(2, 2), "PNG")
    for name, text in [
        ("bom", b"\xef\xbb\xbfa star"), ("crlf", b"a red\r\nstar\r\n"), ("lines", b"a red\nstar"),
        ("utf16", "ein Löwe".encode("utf-16")), ("long", b"word " * 5000), ("emoji", "a \U0001f981".encode()),
    ]:
        put(f"caption-{name}.png", data, caption=None)
        (PICTURES / f"caption-{name}.txt").write_bytes(text)
    for name, text, reason in [
        ("latin1", b"L\xf6we", "line 1 is not UTF-8"), ("nul", b"a\0b", "NUL"), ("empty", b" \n", "no caption"),
        ("none", None, "no caption"),
    ]:
        put(f"caption-{name}.png", data, skipped=reason, caption=None)
        if text is not None:
            (PICTURES / f"caption-{name}.txt").write_bytes(text)


def tables():
    """Tables of the hub and of img2dataset, and latents of kohya's scripts."""
    import numpy
    import pyarrow
    from pyarrow import parquet

    folder = HERE / "tables"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    data = (PICTURES / "plain.png").read_bytes()
    whole = {"bytes": data, "path": "plain.png"}
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    hub = pyarrow.table({
        "image": pyarrow.array([whole, whole, {"bytes": None, "path": "lost.png"}, whole, whole], image),
        "text": pyarrow.array(["a red circle", "a blue\nstar", "lost", None, "a ring"]).dictionary_encode(),
    })
    parquet.write_table(hub, folder / "train-00000-of-00001.parquet", compression="zstd", row_group_size=2)
    parquet.write_table(hub, folder / "test-00000-of-00001.parquet")
    parquet.write_table(pyarrow.table({
        "url": ["http://a", "http://b", "http://c"], "key": ["0", "1", "2"],
        "jpg": pyarrow.array([data, None, data], pyarrow.binary()), "txt": ["one", None, ""],
    }), folder / "00000.parquet", compression="snappy", write_statistics=False)
    parquet.write_table(pyarrow.table({
        "image": pyarrow.array([whole, whole], image), "captions_of_others": ["x", "y"],
        "caption": [["first", "second"], ["only one"]],
    }), folder / "lists.parquet")
    parquet.write_table(pyarrow.table({"url": ["http://a"], "caption": ["x"]}), folder / "urls.parquet")
    (folder / "files").mkdir()
    (folder / "files/x.png").write_bytes(encoded(pattern(4, 4), "PNG"))
    paths = ["./files/x.png", "lost.png", "../pictures/plain.png", "https://a/b.png"]
    rows = [whole, *({"bytes": None, "path": path} for path in paths), {"bytes": None, "path": None}]
    parquet.write_table(pyarrow.table({
        "image": pyarrow.array(rows, image), "text": ["inside", "in a file", "lost", "outside", "a link", "nothing"],
    }), folder / "paths.parquet")

    folder = HERE / "caches"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "3_cats").mkdir(parents=True)
    ramp = lambda height, width: numpy.arange(4 * height * width, dtype=numpy.float32).reshape(4, height, width)
    numpy.savez(folder / "3_cats/b_0064x0048_sd.npz", latents=ramp(12, 16), original_size=numpy.array([640, 480]), crop_ltrb=numpy.array([7, 3, 630, 470]))
    (folder / "3_cats/b.txt").write_text("a cat")
    numpy.savez_compressed(folder / "a.npz", latents=ramp(16, 16))
    numpy.savez(folder / "a_0064x0064_sd.npz", latents=0 * ramp(16, 16))
    (folder / "a.caption").write_text("the old name wins")
    numpy.savez(folder / "several_0064x0064_sd.npz", latents_8x8=ramp(8, 8), latents_16x16=ramp(16, 16), original_size_16x16=numpy.array([64, 64]))
    (folder / "several.txt").write_text("several resolutions")
    numpy.savez(folder / "a_te.npz", states=numpy.zeros(3))


if __name__ == "__main__":
    for folder in [PICTURES, EXPECTED]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for make in [jpegs, pngs, others, captions, tables]:
        make()
    for name in [".DS_Store", "._plain.jpg", "Thumbs.db"]:
        (PICTURES / name).write_bytes(b"of another program")
    (HERE / "skipped.json").write_text(json.dumps(SKIPPED, indent=1) + "\n")
