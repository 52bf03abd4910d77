//! A page that stands alone: no script, no font, no picture from elsewhere.

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; display: block; overflow-x: auto; font-size: .87rem; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .45rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(30rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-size: .87rem; } figcaption b { display: block; } figcaption span { margin-right: .8rem; white-space: nowrap; }
figcaption i { display: inline-block; width: 1.2rem; height: .2rem; margin-right: .3rem; vertical-align: middle; }
figcaption i.dashed { border-top: 2px dashed currentColor; height: 0; }
svg { width: 100%; height: auto; } svg.key { width: .8rem; height: .8rem; margin-right: .3rem; vertical-align: middle; } svg text { font-size: 13px; fill: currentColor; }
.grid { stroke: var(--line); } .level { stroke: currentColor; stroke-dasharray: 5 4; }
polyline { fill: none; stroke-width: 1.8; }
";

/// `body` is HTML already.
pub fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}</body></html>\n"
    )
}

/// A table; cells are text and are escaped.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<table><thead><tr>");
    html.extend(head.iter().map(|cell| format!("<th>{}</th>", escape(cell))));
    html += "</tr></thead><tbody>";
    for row in rows {
        html += "<tr>";
        html.extend(row.iter().map(|cell| format!("<td>{}</td>", escape(cell))));
        html += "</tr>";
    }
    html + "</tbody></table>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_text() {
        let html = table(&["a"], &[vec!["<b>&".into()]]);
        assert!(html.contains("<td>&lt;b&gt;&amp;</td>"));
        assert!(page("x & y", "").contains("<title>x &amp; y</title>"));
    }
}
