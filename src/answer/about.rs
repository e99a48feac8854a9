//! The small pages about the service itself.

use serde::Serialize;

use super::Reply;

/// The health check: the process serves. Whether it can reach the upstream is the admin address's matter.
pub fn health() -> Reply {
    #[derive(Serialize)]
    struct Health {
        status: &'static str,
    }
    Reply::json(200, &Health { status: "ok" })
}

/// The front page: what this is, and where to go.
pub fn root() -> Reply {
    #[derive(Serialize)]
    struct Root {
        name: &'static str,
        endpoints: [&'static str; 5],
    }
    Reply::json(
        200,
        &Root {
            name: "asr-edge",
            endpoints: [
                "POST /v1/audio/transcriptions",
                "GET /v1/models",
                "GET /v1/models/{model}",
                "GET /v1/models/metadata",
                "GET /healthz",
            ],
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{self, Route};

    #[test]
    fn health_is_one_line_of_json() {
        let reply = health();
        assert_eq!((reply.status, reply.content_type), (200, "application/json"));
        assert_eq!(reply.body, r#"{"status":"ok"}"#);
    }

    #[test]
    fn every_endpoint_on_the_front_page_is_routed() {
        let page: serde_json::Value = serde_json::from_slice(&root().body).unwrap();
        assert_eq!(page["name"], "asr-edge");
        for endpoint in page["endpoints"].as_array().unwrap() {
            let (method, path) = endpoint.as_str().unwrap().split_once(' ').unwrap();
            let route = route::find(method, path, &[]);
            assert!(!matches!(route, Route::Unknown | Route::WrongMethod { .. }), "{endpoint}: {route:?}");
        }
    }
}
