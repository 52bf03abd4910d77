//! Line charts as SVG, for pages that need no network.

use std::fmt::Write;

/// One line of a chart.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    /// (x, y), x ascending.
    pub points: Vec<(f64, f64)>,
}

#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub series: Vec<Series>,
    /// A horizontal line to compare with, and its name.
    pub level: Option<(f64, String)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// About so many steps on an axis.
const TICKS: usize = 5;
/// Distinguishable by the colour-blind too (Okabe and Ito).
pub(crate) const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6c6c6c", "#b5a500"];

/// A scale from one round number to another.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = match low {
            _ if low > high => (0.0, 1.0),
            _ if low == high => (low - 0.5, high + 0.5),
            _ => (low, high),
        };
        let step = round_step((high - low) / TICKS as f64);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = ((self.high - self.low) / self.step).round() as usize;
        (0..=count).map(|tick| self.low + tick as f64 * self.step)
    }

    /// As many digits as tell two ticks apart.
    fn text(&self, value: f64) -> String {
        let digits = (-self.step.log10().floor()).max(0.0) as usize;
        // What rounding has left of a zero.
        let value = if value.abs() < self.step / 2.0 { 0.0 } else { value };
        if digits > 4 && value != 0.0 { format!("{value:.1e}") } else { format!("{value:.*}", digits.min(4)) }
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|&round| round >= step * 0.999).unwrap_or(step)
}

/// Where data lie on the paper.
struct Frame {
    x: Axis,
    y: Axis,
}

impl Frame {
    fn of(chart: &Chart) -> Self {
        let points =
            || chart.series.iter().flat_map(|series| &series.points).filter(|p| p.0.is_finite() && p.1.is_finite());
        let level = chart.level.as_ref().map(|(level, _)| *level);
        Self { x: Axis::over(points().map(|p| p.0)), y: Axis::over(points().map(|p| p.1).chain(level)) }
    }

    fn x(&self, x: f64) -> f64 {
        LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart {
    /// The chart with its caption and legend as HTML.
    pub fn html(&self) -> String {
        let frame = Frame::of(self);
        let title = crate::html::escape(&self.title);
        let mut svg = format!("<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
        axes(&mut svg, &frame, self);
        if let Some((level, _)) = &self.level {
            let y = frame.y(*level);
            let right = WIDTH - RIGHT;
            let _ = write!(svg, "<line class=\"level\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        }
        for (i, series) in self.series.iter().enumerate() {
            line(&mut svg, &frame, series, COLOURS[i % COLOURS.len()]);
        }
        svg += "</svg>";
        let _ = write!(svg, "<figcaption><b>{title}</b> {}</figcaption></figure>", self.legend());
        svg
    }

    fn legend(&self) -> String {
        let mut legend = String::new();
        for (i, series) in self.series.iter().enumerate() {
            let (colour, name) = (COLOURS[i % COLOURS.len()], crate::html::escape(&series.name));
            let _ = write!(legend, "<span><i style=\"background:{colour}\"></i>{name}</span> ");
        }
        if let Some((_, name)) = &self.level {
            let _ = write!(legend, "<span><i class=\"dashed\"></i>{}</span>", crate::html::escape(name));
        }
        legend
    }
}

fn axes(svg: &mut String, frame: &Frame, chart: &Chart) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for tick in frame.y.ticks() {
        let at = frame.y(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            frame.y.text(tick)
        );
    }
    for tick in frame.x.ticks() {
        let (at, text) = (frame.x(tick), frame.x.text(tick));
        let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>", bottom + 17.0);
    }
    let (x_label, y_label) = (crate::html::escape(&chart.x_label), crate::html::escape(&chart.y_label));
    let (middle_x, middle_y) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
    let _ = write!(
        svg,
        "<text x=\"{middle_x}\" y=\"{:.1}\" text-anchor=\"middle\">{x_label}</text>\
         <text x=\"14\" y=\"{middle_y}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle_y})\">{y_label}</text>",
        bottom + 34.0
    );
}

fn line(svg: &mut String, frame: &Frame, series: &Series, colour: &str) {
    let finite = series.points.iter().filter(|p| p.0.is_finite() && p.1.is_finite());
    let points: Vec<String> = finite.map(|p| format!("{:.1},{:.1}", frame.x(p.0), frame.y(p.1))).collect();
    let _ = write!(svg, "<polyline points=\"{}\" stroke=\"{colour}\"/>", points.join(" "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_within_the_frame_and_escapes_names() {
        let chart = Chart {
            title: "a < b".into(),
            x_label: "x".into(),
            y_label: "y".into(),
            series: vec![Series { name: "<script>".into(), points: vec![(0.0, 1.0), (10.0, f64::NAN), (20.0, 3.0)] }],
            level: Some((2.0, "level".into())),
        };
        let html = chart.html();
        assert!(html.contains("a &lt; b") && !html.contains("<script>") && !html.contains("NaN"));
        assert_eq!(html.matches("<polyline").count(), 1);
    }

    #[test]
    fn ticks_are_round_and_enclose_the_data() {
        let axis = Axis::over([16.0, 2_000.0].into_iter());
        let ticks: Vec<String> = axis.ticks().map(|tick| axis.text(tick)).collect();
        assert_eq!(ticks, ["0", "500", "1000", "1500", "2000"]);
        let axis = Axis::over([0.542, 0.833].into_iter());
        assert_eq!(axis.ticks().map(|tick| axis.text(tick)).collect::<Vec<_>>(), ["0.5", "0.6", "0.7", "0.8", "0.9"]);
        let axis = Axis::over([0.000_2, 0.008].into_iter());
        assert_eq!(axis.text(axis.low), "0.000");
        assert!(axis.high >= 0.008);
    }

    #[test]
    fn nothing_to_draw_is_not_a_failure() {
        let empty = Chart { title: "t".into(), x_label: "".into(), y_label: "".into(), series: vec![], level: None };
        assert!(empty.html().contains("<svg"));
    }
}
