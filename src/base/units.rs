//! Numbers as people read them.

/// `1.3 GB`, decimal units.
pub fn bytes(count: u64) -> String {
    scaled(count as f64, &["B", "kB", "MB", "GB", "TB"])
}

/// `859.5 M`, for parameters and multiply-accumulates.
pub fn count(number: u64) -> String {
    scaled(number as f64, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

/// `3.2 s`, `4 min 05 s`, `2 h 07 min`.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 59.95 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

fn scaled(mut value: f64, names: &[&str]) -> String {
    let mut rank = 0;
    while value >= 999.95 && rank + 1 < names.len() {
        value /= 1e3;
        rank += 1;
    }
    let digits = if rank == 0 { 0 } else { 1 };
    format!("{value:.digits$} {}", names[rank])
}

#[cfg(test)]
mod tests {
    #[test]
    fn rounds_where_people_do() {
        assert_eq!(super::bytes(999), "999 B");
        assert_eq!(super::bytes(1_331_334_404), "1.3 GB");
        assert_eq!(super::count(859_520_964), "859.5 M");
        assert_eq!(super::seconds(0.0312), "31 ms");
        assert_eq!(super::seconds(245.2), "4 min 05 s");
        assert_eq!(super::seconds(7620.0), "2 h 07 min");
    }
}
