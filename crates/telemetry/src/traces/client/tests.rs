//! A collector and a proxy on sockets, and a program that has its own client of HTTP.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const DONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn tls() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

fn client(endpoint: &str, proxies: Matcher) -> Client {
    Client { proxies, ..Client::new(tls(), &endpoint.parse().unwrap()) }
}

fn post(endpoint: &str) -> Request<Bytes> {
    Request::post(endpoint).header("x-a", "1").body(Bytes::from_static(b"spans")).unwrap()
}

/// Reads a request up to the end of its body, and answers it.
async fn answer(stream: &mut TcpStream, with: &str) -> String {
    let mut read = Vec::new();
    let is_whole =
        |read: &[u8]| read.ends_with(b"spans") || read.starts_with(b"CONNECT") && read.ends_with(b"\r\n\r\n");
    while !is_whole(&read) {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{:?}", String::from_utf8_lossy(&read));
    }
    stream.write_all(with.as_bytes()).await.unwrap();
    String::from_utf8(read).unwrap().to_ascii_lowercase()
}

#[test]
fn a_program_with_its_own_client_of_http_can_make_one() {
    // It depends on reqwest without TLS. Would this crate turn on TLS without a provider there, this would panic.
    let _client = reqwest::Client::new();
}

#[tokio::test]
async fn a_connection_is_used_again_and_made_anew_when_the_collector_has_closed_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = format!("http://ada:s%40cret@{address}/v1/traces?key=1");
    let client = client(&endpoint, Matcher::builder().build());
    let collecting = async {
        let (mut first, _) = listener.accept().await.unwrap();
        let request = answer(&mut first, DONE).await;
        assert!(request.starts_with("post /v1/traces?key=1 http/1.1\r\n"), "{request}");
        for line in [&format!("host: {address}"), "x-a: 1", "authorization: basic ywrhonnay3jlda=="] {
            assert!(request.contains(&format!("\r\n{line}\r\n")), "{request}");
        }
        answer(&mut first, DONE).await;
        drop(first);
        answer(&mut listener.accept().await.unwrap().0, DONE).await;
    };
    let sending = async {
        for _ in 0..3 {
            let response = client.send_bytes(post(&endpoint)).await.unwrap();
            assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &b"ok"[..]));
        }
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(collecting, sending) }).await.unwrap();
}

#[tokio::test]
async fn a_proxy_forwards_what_is_plain_and_is_asked_for_a_tunnel_for_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://p:q@{}", listener.local_addr().unwrap());
    let proxies = || Matcher::builder().all(proxy.clone()).build();
    let plain = "http://collector.example:4318/v1/traces";
    let (request, response) =
        tokio::join!(async { answer(&mut listener.accept().await.unwrap().0, DONE).await }, async {
            client(plain, proxies()).send(post(plain)).await
        },);
    assert_eq!(response.unwrap().status(), 200);
    assert!(request.starts_with("post http://collector.example:4318/v1/traces http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nproxy-authorization: basic cdpx\r\n"), "{request}");
    let secure = "https://collector.example/v1/traces";
    let (greeting, response) = tokio::join!(
        async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = answer(&mut stream, "HTTP/1.1 200 OK\r\n\r\n").await;
            assert!(request.starts_with("connect collector.example:443 http/1.1\r\n"), "{request}");
            stream.read_u8().await.unwrap()
        },
        async { client(secure, proxies()).send(post(secure)).await },
    );
    // The record type of a handshake: TLS speaks through the tunnel.
    assert_eq!(greeting, 22);
    assert!(response.is_err());
}
