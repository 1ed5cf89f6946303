//! The rates as bars, in SVG.

use std::fmt::Write as _;

const ROW: f64 = 34.0;
const LEFT: f64 = 170.0;
const WIDTH: f64 = 460.0;

/// One bar a measure, the longest as long as the picture allows.
pub fn bars(rates: &[(&str, f64)]) -> String {
    let most = rates.iter().map(|(_, rate)| *rate).fold(1.0, f64::max);
    let height = ROW * f64::from(u32::try_from(rates.len()).unwrap_or(1)) + 40.0;
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height:.0}" font-family="sans-serif" font-size="13">"#
    );
    let _ = writeln!(svg, r#"<rect width="100%" height="100%" fill="white"/>"#);
    let _ = writeln!(svg, r#"<text x="{LEFT}" y="20">million records a second</text>"#);
    let mut y = 34.0;
    for (name, rate) in rates {
        let name = name.replace('_', " ");
        let length = rate / most * WIDTH;
        let colour = if name.starts_with("bare") { "#9aa5b1" } else { "#2b6cb0" };
        let (middle, right) = (y + 16.0, LEFT + length + 8.0);
        let _ = writeln!(
            svg,
            r#"<text x="{:.0}" y="{middle:.0}" text-anchor="end">{name}</text><rect x="{LEFT}" y="{y:.0}" width="{length:.1}" height="22" fill="{colour}"/><text x="{right:.1}" y="{middle:.0}">{:.2}</text>"#,
            LEFT - 8.0,
            rate / 1e6,
        );
        y += ROW;
    }
    svg.push_str("</svg>\n");
    svg
}
