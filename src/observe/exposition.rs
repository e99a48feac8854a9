//! Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).

use std::fmt::{Display, Write};

/// `Content-Type` of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Labels of a sample: names are ours, values are escaped.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// A page in the making.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// An empty page.
    pub const fn new() -> Self {
        Self(String::new())
    }

    /// Begins a counter; its samples follow. `name` ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Samples<'_> {
        self.family(name, "counter", help)
    }

    /// Begins a gauge; its samples follow.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Samples<'_> {
        self.family(name, "gauge", help)
    }

    /// Begins a histogram; its samples follow.
    pub fn histogram(&mut self, name: &'static str, help: &str) -> Samples<'_> {
        self.family(name, "histogram", help)
    }

    /// The whole page.
    pub fn into_text(self) -> String {
        self.0
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Samples<'_> {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Samples { text: &mut self.0, name }
    }
}

/// The samples of one metric.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Samples<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.part("", labels, value)
    }

    /// One sample of a metric's part, such as `_bucket`.
    pub fn part(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) -> &mut Self {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{name}=\"{value}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_the_format_s_own_example() {
        let mut page = Page::new();
        page.counter("http_requests_total", "The number of requests.")
            .sample(&[("method", "post"), ("code", "200")], 1027)
            .sample(&[("method", "post"), ("code", "400")], 3);
        page.gauge("msdos_files", "Escapes.").sample(&[("path", "C:\\\"DIR\"\n")], 1.5);
        page.gauge("plain", "No labels.").sample(&[], 0);
        let text = "# HELP http_requests_total The number of requests.\n\
                    # TYPE http_requests_total counter\n\
                    http_requests_total{method=\"post\",code=\"200\"} 1027\n\
                    http_requests_total{method=\"post\",code=\"400\"} 3\n\
                    # HELP msdos_files Escapes.\n\
                    # TYPE msdos_files gauge\n\
                    msdos_files{path=\"C:\\\\\\\"DIR\\\"\\n\"} 1.5\n\
                    # HELP plain No labels.\n\
                    # TYPE plain gauge\n\
                    plain 0\n";
        assert_eq!(page.into_text(), text);
    }
}
