//! Bar and line plots as SVG.
//!
//! Owns: scales, axes, labels. Does not know: what is measured; colours are CSS classes of the page. Data in, SVG out.

use std::fmt::Write as _;

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 176.0;
/// Margins: values on the left, names below, the label of the tallest bar above.
const LEFT: f64 = 44.0;
const BELOW: f64 = 26.0;
const ABOVE: f64 = 18.0;
/// Widest bar.
const BAR_MAX: f64 = 38.0;
/// Approximate number of scale lines.
const LINES: f64 = 4.0;

/// One value per category.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bars {
    /// Its name in the legend.
    pub(super) name: &'static str,
    /// CSS class that colours it.
    pub(super) class: &'static str,
    /// A value for each category; None where there is none.
    pub(super) values: Vec<Option<f64>>,
}

/// One plot.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plot {
    /// Text for screen readers.
    pub(super) title: String,
    pub(super) unit: &'static str,
    /// Names below the bars.
    pub(super) categories: Vec<String>,
    pub(super) bars: Vec<Bars>,
    /// Stacked instead of side by side.
    pub(super) stacked: bool,
    /// Minimum end of the scale, so that small values look small.
    pub(super) at_least: f64,
}

/// Escapes text for SVG and HTML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number with up to two decimals: none from 10 on, two below 1.
pub(super) fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v == 0.0 || v >= 9.95 => 0,
        v if v >= 0.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// A value of the scale, with the digits that its step needs.
fn on_scale(value: f64, step: f64) -> String {
    let digits = (0..4).find(|digits| (step * 10f64.powi(*digits)).fract() < 1e-6).unwrap_or(4) as usize;
    format!("{value:.digits$}")
}

/// The step of the scale: 1, 2 or 5 times a power of ten.
fn step(top: f64) -> f64 {
    let rough = top / LINES;
    let power = 10f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0].into_iter().find(|times| times * power >= rough * 0.999);
    times.unwrap_or(10.0) * power
}

fn begun(title: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escaped(title))
}

/// The scale on the left.
fn scale(svg: &mut String, top: f64, step: f64, y: impl Fn(f64) -> f64) {
    for line in 0..=(top / step).round() as usize {
        let value = line as f64 * step;
        let class = if line == 0 { "base" } else { "line" };
        let at = y(value);
        let _ = write!(svg, "<path class=\"{class}\" d=\"M{LEFT} {at:.1}H{WIDTH}\"/>");
        let (x, below) = (LEFT - 8.0, at + 4.0);
        let _ = write!(svg, "<text class=\"scale\" x=\"{x:.1}\" y=\"{below:.1}\">{}</text>", on_scale(value, step));
    }
}

/// Points, and a straight line from the left edge to the last point.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Text for screen readers.
    pub(super) title: String,
    pub(super) unit: &'static str,
    pub(super) points: Vec<(f64, f64)>,
    /// Value at the left edge, and slope per unit of x.
    pub(super) through: (f64, f64),
}

impl Line {
    /// The plot as an `<svg>` element.
    pub(super) fn svg(&self) -> String {
        let most = |value: fn(&(f64, f64)) -> f64| self.points.iter().map(value).fold(f64::MIN_POSITIVE, f64::max);
        let (right, top) = (most(|(x, _)| *x), most(|(_, y)| *y));
        let step = step(top);
        let scale_top = (top / step).ceil() * step;
        // Room for half a label on the right.
        let x = |value: f64| LEFT + (WIDTH - LEFT - 30.0) * value / right;
        let y = |value: f64| ABOVE + (HEIGHT - ABOVE - BELOW) * (1.0 - value / scale_top);
        let mut svg = begun(&self.title);
        scale(&mut svg, scale_top, step, y);
        let (base, slope) = self.through;
        let (from, to) = (y(base.max(0.0)), y(base + slope * right));
        let _ = write!(svg, "<path class=\"fit\" d=\"M{LEFT} {from:.1}L{:.1} {to:.1}\"/>", x(right));
        for (at, value) in &self.points {
            let (left, height) = (x(*at), y(*value));
            let (shown, unit) = (short(*value), self.unit);
            let _ = write!(
                svg,
                "<circle class=\"a\" cx=\"{left:.1}\" cy=\"{height:.1}\" r=\"4\">\
                 <title>{at:.0}: {shown} {unit}</title></circle>"
            );
        }
        let name = |svg: &mut String, at: f64| {
            let _ = write!(svg, "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{at:.0}</text>", x(at), HEIGHT - 7.0);
        };
        name(&mut svg, 0.0);
        name(&mut svg, right);
        svg + "</svg>"
    }
}

impl Plot {
    /// The end of the scale for these bars.
    pub(super) fn top(&self) -> f64 {
        let of_category = |at: usize| {
            let values = self.bars.iter().filter_map(|bars| bars.values.get(at).copied().flatten());
            if self.stacked { values.sum() } else { values.fold(0.0, f64::max) }
        };
        (0..self.categories.len()).map(of_category).fold(self.at_least.max(f64::MIN_POSITIVE), f64::max)
    }

    /// The plot as an `<svg>` element.
    pub(super) fn svg(&self) -> String {
        let step = step(self.top());
        let scale_top = (self.top() / step).ceil() * step;
        let (plot_height, plot_width) = (HEIGHT - ABOVE - BELOW, WIDTH - LEFT);
        let y = |value: f64| ABOVE + plot_height * (1.0 - value / scale_top);
        let mut svg = begun(&self.title);
        scale(&mut svg, scale_top, step, y);
        let slot = plot_width / self.categories.len().max(1) as f64;
        for (at, category) in self.categories.iter().enumerate() {
            let middle = LEFT + slot * (at as f64 + 0.5);
            let _ = write!(
                svg,
                "<text class=\"name\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>",
                HEIGHT - 7.0,
                escaped(category)
            );
            self.draw_category(&mut svg, at, middle, slot, y);
        }
        svg + "</svg>"
    }

    fn draw_category(&self, svg: &mut String, at: usize, middle: f64, slot: f64, y: impl Fn(f64) -> f64) {
        let abreast = if self.stacked { 1 } else { self.bars.len().max(1) } as f64;
        let pitch = (slot * 0.78 / abreast).min(BAR_MAX + 4.0);
        let width = pitch - 4.0;
        let mut below = 0.0;
        for (number, bars) in self.bars.iter().enumerate() {
            let Some(value) = bars.values.get(at).copied().flatten() else { continue };
            let column = if self.stacked { 0.0 } else { number as f64 - (abreast - 1.0) / 2.0 };
            let left = middle + column * pitch - width / 2.0;
            let (top, bottom) = (y(below + value), y(below));
            let (name, unit) = (escaped(bars.name), self.unit);
            let _ = write!(
                svg,
                "<rect class=\"{}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\">\
                 <title>{name}: {} {unit}</title></rect>",
                bars.class,
                (bottom - top).max(0.0),
                short(value)
            );
            if self.stacked {
                below += value;
            } else {
                label(svg, left + width / 2.0, top, value);
            }
        }
        if self.stacked && below > 0.0 {
            label(svg, middle, y(below), below);
        }
    }
}

fn label(svg: &mut String, x: f64, top: f64, value: f64) {
    let _ = write!(svg, "<text class=\"value\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", top - 5.0, short(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(values: [Option<f64>; 2], stacked: bool) -> Plot {
        let bars = |name, class| Bars { name, class, values: values.to_vec() };
        Plot {
            title: "a < b".to_owned(),
            unit: "ms",
            categories: vec!["one & only".to_owned(), "two".to_owned()],
            bars: vec![bars("A", "a"), bars("B", "b")],
            stacked,
            at_least: 1.0,
        }
    }

    /// Tops and bottoms of the bars of a class.
    fn spans(svg: &str, class: &str) -> Vec<(f64, f64)> {
        let number = |rect: &str, name: &str| -> f64 {
            let rest = rect.split(&format!(" {name}=\"")).nth(1).expect("the attribute is there");
            rest.split('"').next().expect("its value").parse().expect("a number")
        };
        let begins = format!("<rect class=\"{class}\"");
        let rects = svg.split(&begins).skip(1);
        rects.map(|rect| (number(rect, "y"), number(rect, "y") + number(rect, "height"))).collect()
    }

    #[test]
    fn bars_are_as_high_as_their_values() {
        let svg = plot([Some(100.0), Some(50.0)], false).svg();
        let bars = spans(&svg, "a");
        let heights: Vec<f64> = bars.iter().map(|(top, bottom)| bottom - top).collect();
        assert!((heights[0] / heights[1] - 2.0).abs() < 0.01, "{heights:?}");
        assert!((heights[0] - (HEIGHT - ABOVE - BELOW)).abs() < 0.2, "{heights:?}");
        assert!(svg.contains("a &lt; b") && svg.contains("one &amp; only") && svg.contains(">100<"), "{svg}");
    }

    #[test]
    fn stacked_bars_stand_on_each_other() {
        let svg = plot([Some(30.0), Some(10.0)], true).svg();
        for (lower, upper) in spans(&svg, "a").into_iter().zip(spans(&svg, "b")) {
            assert!((lower.0 - upper.1).abs() < 0.11, "{lower:?} {upper:?}");
        }
        assert!(svg.contains("class=\"value\"") && svg.contains(">60<"), "the sum is written above: {svg}");
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let line = Line {
            title: "cost".to_owned(),
            unit: "%",
            points: vec![(1.0, 2.0), (500.0, 51.9), (1_000.0, 101.9)],
            through: (1.9, 0.1),
        };
        let svg = line.svg();
        let numbers = |part: &str| -> Vec<f64> {
            let numbers = part.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(|n| n.parse().ok());
            numbers.collect()
        };
        let path = svg.split("class=\"fit\" d=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("the line");
        let [left, from, right, to] = numbers(path)[..] else { panic!("{path}") };
        for circle in svg.split("<circle").skip(1) {
            let at = |name: &str| numbers(circle.split(name).nth(1).expect("it is there"))[0];
            let on_line = from + (to - from) * (at("cx=") - left) / (right - left);
            assert!((on_line - at("cy=")).abs() < 0.3, "{circle} is not on {path}");
        }
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let svg = plot([None, Some(0.0)], false).svg();
        assert_eq!(spans(&svg, "a").len(), 1);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let empty = Plot { categories: Vec::new(), bars: Vec::new(), ..plot([None, None], true) };
        assert!(!empty.svg().contains("NaN"));
    }

    #[test]
    fn numbers_are_short_and_scales_round() {
        let shown: Vec<String> = [0.0, 0.004, 0.5, 1.25, 12.34, 99.9, 1234.5].into_iter().map(short).collect();
        assert_eq!(shown, ["0", "0.00", "0.50", "1.2", "12", "100", "1234"]);
        assert_eq!([on_scale(20.0, 10.0), on_scale(1.5, 0.5), on_scale(0.04, 0.02)], ["20", "1.5", "0.04"]);
        assert_eq!([1.0, 7.0, 33.0, 100.0, 170.0].map(step), [0.5, 2.0, 10.0, 50.0, 50.0]);
    }
}
