//! Method and path in, the place they mean out: our own pages first, then what services beside Codex have.

use percent_encoding::percent_decode_str;

use crate::translate::Shape;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// A transcription.
    Transcribe {
        /// Whose shape the request and its answer have.
        shape: Shape,
        /// Azure names the model in the path, decoded here; it wins over the field.
        model: Option<String>,
    },
    /// A translation, which this upstream has none of.
    Translations,
    /// The list of models.
    Models,
    /// One model, by its decoded name.
    Model(String),
    /// The list of models, with what this endpoint can do for each.
    ModelsMetadata,
    /// The health check.
    Health,
    /// The front page.
    Root,
    /// A path that we know, with a method that it does not take.
    WrongMethod {
        /// The value of `Allow` (RFC 9110 section 10.2.1).
        allow: &'static str,
    },
    /// A path below a service's prefix: the service's number in the table.
    Service(usize),
    /// A path that we do not know.
    Unknown,
}

/// One line of the table of prefixes: requests for `path` and all below it go to that service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    path: String,
    service: usize,
}

/// The table of prefixes, from paths and the numbers of their services; the longest come first.
pub fn prefixes<'a>(paths: impl Iterator<Item = (&'a str, usize)>) -> Vec<Prefix> {
    let mut table: Vec<_> = paths
        .map(|(path, service)| Prefix { path: path.trim_end_matches('/').to_owned(), service })
        .collect();
    table.sort_by_key(|prefix| std::cmp::Reverse(prefix.path.len()));
    table
}

impl Route {
    /// A fixed name, for logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Transcribe { shape: Shape::OpenAi, .. } => "transcriptions",
            Self::Transcribe { shape: Shape::Codex, .. } => "transcribe",
            Self::Translations => "translations",
            Self::Models => "models",
            Self::Model(_) => "model",
            Self::ModelsMetadata => "models_metadata",
            Self::Health => "health",
            Self::Root => "root",
            Self::WrongMethod { .. } => "wrong_method",
            Self::Service(_) => "service",
            Self::Unknown => "unknown",
        }
    }
}

/// Finds the place that `method` and `path` mean. A query string, doubled slashes and a trailing slash make no
/// difference: base URLs are given with and without them, and an upload must never be redirected. What is not ours
/// goes by `prefixes`; so does the front page, which is a courtesy where nothing else is there.
pub fn find(method: &str, path: &str, prefixes: &[Prefix]) -> Route {
    match own(method, path) {
        (true, route) => route,
        (false, route) => service(path, prefixes).map_or(route, Route::Service),
    }
}

/// The path and query of a request below a service's own path.
pub fn below(base: &str, path_and_query: &str) -> String {
    format!("{}{path_and_query}", base.trim_end_matches('/'))
}

/// The path and query of OpenAI's endpoint `what` below a service's own path, which may be written with its `/v1`.
pub fn endpoint_below(base: &str, what: &str, query: Option<&str>) -> String {
    let base = base.trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base);
    let mark = if query.is_some() { "?" } else { "" };
    format!("{base}/v1/audio/{what}{mark}{}", query.unwrap_or_default())
}

fn service(path: &str, prefixes: &[Prefix]) -> Option<usize> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let covers = |prefix: &&Prefix| {
        path.strip_prefix(&prefix.path)
            .is_some_and(|rest| rest.starts_with('/') || (rest.is_empty() && !path.is_empty()))
    };
    prefixes.iter().find(covers).map(|prefix| prefix.service)
}

/// Our own place, and whether it is ours alone.
fn own(method: &str, path: &str) -> (bool, Route) {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let route = place(&segments);
    let alone = !matches!(route, Route::Unknown | Route::Root);
    let allow = match route {
        Route::Unknown => return (alone, route),
        Route::Transcribe { .. } | Route::Translations => "POST",
        _ => "GET, HEAD",
    };
    let takes = allow.split(", ").any(|allowed| allowed == method);
    (alone, if takes { route } else { Route::WrongMethod { allow } })
}

fn place(segments: &[&str]) -> Route {
    match segments {
        ["healthz" | "health"] => Route::Health,
        ["backend-api", "transcribe"] => Route::Transcribe { shape: Shape::Codex, model: None },
        ["openai", "deployments", model, "audio", "transcriptions"] => {
            Route::Transcribe { shape: Shape::OpenAi, model: Some(decoded(model)) }
        }
        ["openai", "deployments", _, "audio", "translations"] => Route::Translations,
        // Clients append `audio/transcriptions` to whatever base URL they were given: with `/v1`, with Groq's
        // `/openai/v1`, or with the bare host.
        ["openai", "v1", rest @ ..] | ["v1", rest @ ..] | rest => match rest {
            [] => Route::Root,
            ["audio", "transcriptions"] => Route::Transcribe { shape: Shape::OpenAi, model: None },
            ["audio", "translations"] => Route::Translations,
            ["models"] => Route::Models,
            ["models", "metadata"] => Route::ModelsMetadata,
            // Some model names hold a slash, and not every client encodes it.
            ["models", name @ ..] => Route::Model(decoded(&name.join("/"))),
            _ => Route::Unknown,
        },
    }
}

/// Percent-decoded once (RFC 3986 section 2.1). What is no UTF-8 becomes U+FFFD and so names no model.
fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENAI: Route = Route::Transcribe { shape: Shape::OpenAi, model: None };

    fn find(method: &str, path: &str) -> Route {
        super::find(method, path, &[])
    }

    fn azure(model: &str) -> Route {
        Route::Transcribe { shape: Shape::OpenAi, model: Some(model.to_owned()) }
    }

    #[test]
    fn every_alias_of_the_endpoint_is_the_endpoint() {
        for path in [
            "/v1/audio/transcriptions",
            "/audio/transcriptions",
            "/openai/v1/audio/transcriptions",
            "//v1/audio/transcriptions",
            "/v1//audio///transcriptions",
            "/v1/audio/transcriptions/",
            "/v1/audio/transcriptions?api-version=2024-06-01",
            "/v1/audio/transcriptions/?x=/v1/models",
        ] {
            assert_eq!(find("POST", path), OPENAI, "{path}");
        }
    }

    #[test]
    fn azure_names_the_model_in_the_path_percent_encoded() {
        for (path, model) in [
            ("/openai/deployments/whisper-1/audio/transcriptions?api-version=2024-06-01", "whisper-1"),
            ("/openai/deployments/my%20model%2F2/audio/transcriptions", "my model/2"),
            ("/openai/deployments/a+b/audio/transcriptions/", "a+b"),
            ("/openai/deployments/100%/audio/transcriptions", "100%"),
            ("/openai/deployments/%2541/audio/transcriptions", "%41"),
            ("/openai/deployments/%ff/audio/transcriptions", "\u{fffd}"),
        ] {
            assert_eq!(find("POST", path), azure(model), "{path}");
        }
        assert_eq!(find("POST", "/openai/deployments//audio/transcriptions"), Route::Unknown);
    }

    #[test]
    fn codex_has_its_own_door() {
        let codex = Route::Transcribe { shape: Shape::Codex, model: None };
        assert_eq!(find("POST", "/backend-api/transcribe"), codex);
        assert_eq!(find("POST", "/backend-api/transcribe/x"), Route::Unknown);
    }

    #[test]
    fn the_small_pages_are_found() {
        for (path, route) in [
            ("/", Route::Root),
            ("", Route::Root),
            ("/v1", Route::Root),
            ("/v1/", Route::Root),
            ("/healthz", Route::Health),
            ("/health/", Route::Health),
            ("/v1/models", Route::Models),
            ("/models", Route::Models),
            ("/v1/models/", Route::Models),
            ("/v1/models/metadata", Route::ModelsMetadata),
            ("/v1/models/whisper-1", Route::Model("whisper-1".to_owned())),
            ("/v1/models/acme%2Fwhisper", Route::Model("acme/whisper".to_owned())),
            ("/v1/models/acme/whisper", Route::Model("acme/whisper".to_owned())),
        ] {
            for method in ["GET", "HEAD"] {
                assert_eq!(find(method, path), route, "{method} {path}");
            }
        }
    }

    #[test]
    fn translations_have_a_place_of_their_own() {
        for path in [
            "/v1/audio/translations",
            "/audio/translations",
            "/openai/deployments/whisper-1/audio/translations",
        ] {
            assert_eq!(find("POST", path), Route::Translations, "{path}");
        }
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        for (methods, path, allow) in [
            (["GET", "PUT", "OPTIONS", "TRACE", "post"], "/v1/audio/transcriptions", "POST"),
            (["GET", "HEAD", "DELETE", "OPTIONS", "CONNECT"], "/v1/audio/translations", "POST"),
            (["GET", "HEAD", "DELETE", "OPTIONS", "PATCH"], "/backend-api/transcribe", "POST"),
            (["POST", "PUT", "DELETE", "OPTIONS", "get"], "/v1/models", "GET, HEAD"),
            (["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"], "/", "GET, HEAD"),
        ] {
            for method in methods {
                assert_eq!(find(method, path), Route::WrongMethod { allow }, "{method} {path}");
            }
        }
    }

    #[test]
    fn what_we_do_not_serve_is_unknown_under_any_method() {
        for path in [
            "/v1/audio/speech",
            "/v1/audio",
            "/v2/audio/transcriptions",
            "/v1/audio/transcriptions/extra",
            "/V1/audio/transcriptions",
            "/v1/audio%2Ftranscriptions",
            "/v1/../audio/transcriptions",
            "/v1/healthz",
            "*",
        ] {
            for method in ["GET", "POST", "OPTIONS"] {
                assert_eq!(find(method, path), Route::Unknown, "{method} {path}");
            }
        }
    }

    #[test]
    fn the_longest_prefix_wins_and_ends_at_a_segment() {
        let table = prefixes([("/", 0), ("/a", 1), ("/a/b/", 2)].into_iter());
        for (path, service) in [
            ("/a", 1),
            ("/a/", 1),
            ("/a?x=/a/b", 1),
            ("/a/bc", 1),
            ("/a/b", 2),
            ("/a/b/c", 2),
            ("/ab", 0),
            ("/", 0),
            ("/v1", 0),
            ("//", 0),
            ("/v1/embeddings", 0),
        ] {
            for method in ["GET", "POST", "DELETE"] {
                assert_eq!(super::find(method, path, &table), Route::Service(service), "{method} {path}");
            }
        }
        let table = prefixes([("/a", 1)].into_iter());
        for path in ["/ab", "*", "/b"] {
            assert_eq!(super::find("GET", path, &table), Route::Unknown, "{path}");
        }
        assert_eq!(super::find("GET", "/", &table), Route::Root);
    }

    #[test]
    fn no_prefix_takes_a_page_of_ours() {
        let table = prefixes([("/", 0), ("/v1", 1)].into_iter());
        assert_eq!(super::find("POST", "/v1/audio/transcriptions", &table), OPENAI);
        assert_eq!(super::find("GET", "/v1/models", &table), Route::Models);
        assert_eq!(super::find("GET", "/healthz", &table), Route::Health);
        let wrong = Route::WrongMethod { allow: "POST" };
        assert_eq!(super::find("GET", "/v1/audio/transcriptions", &table), wrong);
        assert_eq!(super::find("GET", "/v1", &table), Route::Service(1));
    }

    #[test]
    fn a_service_may_have_a_path_of_its_own() {
        assert_eq!(below("/", "/a?b"), "/a?b");
        assert_eq!(below("/base/", "/a"), "/base/a");
        for base in ["/", "/v1", "/v1/"] {
            assert_eq!(endpoint_below(base, "transcriptions", None), "/v1/audio/transcriptions");
        }
        let deep = endpoint_below("/openai/v1", "translations", Some("x=1"));
        assert_eq!(deep, "/openai/v1/audio/translations?x=1");
    }
}
