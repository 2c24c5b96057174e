//! The page in the browser: three files, served as they are.

use purista_http::gateway::Gateway;

/// Serves the page at `/`.
pub(crate) fn add_to(gateway: Gateway) -> Gateway {
    gateway
        .page("/", "text/html", include_str!("../web/index.html"))
        .page("/sign-up.css", "text/css", include_str!("../web/sign-up.css"))
        .page("/sign-up.js", "text/javascript", include_str!("../web/sign-up.js"))
}
