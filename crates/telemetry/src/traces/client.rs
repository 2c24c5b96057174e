//! An HTTP/1.1 client for the collector: one connection that is kept, over TLS where the URL says so, through the proxy that
//! the environment names.
//!
//! It is built on hyper and rustls with a provider of its own. A client library with TLS features would share them with the
//! program: Cargo unifies the features of a dependency, and `reqwest` with `rustls-no-provider` panics in a program that has
//! set no provider for the process.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// The longest response that is read, in bytes; a collector answers with next to nothing.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// A stream to the collector, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type Io = TokioIo<Box<dyn Stream>>;

/// Sends requests to one collector. Each request is bounded by the time that its caller waits.
pub(super) struct Client {
    tls: TlsConnector,
    proxies: Matcher,
    /// The credentials in the URL, as `authorization` says them.
    credentials: Option<HeaderValue>,
    /// The connection of the last request, if it can be used again.
    kept: Mutex<Option<Line>>,
}

/// An open connection. It is driven by the requests on it.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<Io, Full<Bytes>>,
    is_open: bool,
    /// Whether a proxy forwards the requests, which then name the whole URL.
    is_forwarded: bool,
    proxy_credentials: Option<HeaderValue>,
}

impl Client {
    pub(super) fn new(tls: ClientConfig, endpoint: &Uri) -> Self {
        Self {
            tls: TlsConnector::from(Arc::new(tls)),
            proxies: Matcher::from_env(),
            credentials: credentials(endpoint),
            kept: Mutex::new(None),
        }
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut line) = kept {
            // The collector may have closed it meanwhile; spans that come twice have the same ids.
            if let Ok(response) = line.exchange(self.prepared(&line, &request)?).await {
                self.keep(line);
                return Ok(response);
            }
        }
        let mut line = self.connect(request.uri()).await?;
        let response = line.exchange(self.prepared(&line, &request)?).await?;
        self.keep(line);
        Ok(response)
    }

    fn keep(&self, line: Line) {
        if line.is_open {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
        }
    }

    /// The request as it goes over this connection.
    fn prepared(&self, line: &Line, request: &Request<Bytes>) -> Result<Request<Full<Bytes>>, HttpError> {
        let uri = request.uri();
        let host = host_of(uri)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let host = uri.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let target = if line.is_forwarded { format!("http://{host}{path}") } else { path.to_owned() };
        let mut prepared = Request::builder().method(request.method()).uri(target);
        if let Some(headers) = prepared.headers_mut() {
            headers.clone_from(request.headers());
            headers.insert(HOST, HeaderValue::try_from(host)?);
            if let Some(credentials) = self.credentials.clone() {
                headers.entry(AUTHORIZATION).or_insert(credentials);
            }
            if let Some(credentials) = line.proxy_credentials.clone() {
                headers.insert(PROXY_AUTHORIZATION, credentials);
            }
        }
        Ok(prepared.body(Full::new(request.body().clone()))?)
    }

    async fn connect(&self, uri: &Uri) -> Result<Line, HttpError> {
        let is_tls = uri.scheme_str() == Some("https");
        let proxy = self.proxies.intercept(uri);
        let (host, port) = (host_of(uri)?, uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }));
        let stream: Box<dyn Stream> = match &proxy {
            None => Box::new(TcpStream::connect((unbracketed(host), port)).await?),
            Some(proxy) => {
                let stream = self.connect_to_proxy(proxy).await?;
                if is_tls { tunnel(stream, host, port, proxy.basic_auth()).await? } else { stream }
            }
        };
        let stream = if is_tls { self.secure(stream, host).await? } else { stream };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let forwarder = proxy.filter(|_| !is_tls);
        Ok(Line {
            sender,
            connection,
            is_open: true,
            is_forwarded: forwarder.is_some(),
            proxy_credentials: forwarder.and_then(|proxy| proxy.basic_auth().cloned()),
        })
    }

    async fn connect_to_proxy(&self, proxy: &Intercept) -> Result<Box<dyn Stream>, HttpError> {
        let (uri, host) = (proxy.uri(), host_of(proxy.uri())?);
        let (is_tls, default_port) = match uri.scheme_str() {
            None | Some("http") => (false, 80),
            Some("https") => (true, 443),
            Some(_) => return Err("the proxy of the environment is no HTTP proxy".into()),
        };
        let port = uri.port_u16().unwrap_or(default_port);
        let stream: Box<dyn Stream> = Box::new(TcpStream::connect((unbracketed(host), port)).await?);
        if is_tls { self.secure(stream, host).await } else { Ok(stream) }
    }

    async fn secure(&self, stream: Box<dyn Stream>, host: &str) -> Result<Box<dyn Stream>, HttpError> {
        let name = ServerName::try_from(unbracketed(host).to_owned())?;
        Ok(Box::new(self.tls.connect(name, stream).await?))
    }
}

/// Asks a proxy for a tunnel to this host.
async fn tunnel(
    stream: Box<dyn Stream>,
    host: &str,
    port: u16,
    credentials: Option<&HeaderValue>,
) -> Result<Box<dyn Stream>, HttpError> {
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    let target = format!("{host}:{port}");
    let mut request = Request::builder().method(Method::CONNECT).uri(&target).header(HOST, &target);
    if let Some(credentials) = credentials {
        request = request.header(PROXY_AUTHORIZATION, credentials);
    }
    let asking = async {
        let response = sender.send_request(request.body(Full::default())?).await?;
        if !response.status().is_success() {
            return Err(format!("the proxy answered {} to CONNECT", response.status()).into());
        }
        Ok::<_, HttpError>(hyper::upgrade::on(response).await?)
    };
    // The connection ends with the upgrade, so both are driven until the upgraded stream is here.
    let (mut asking, mut connection) = (pin!(asking), pin!(connection.with_upgrades()));
    let upgraded = tokio::select! {
        biased;
        upgraded = asking.as_mut() => upgraded?,
        _ = connection.as_mut() => asking.await?,
    };
    Ok(Box::new(TokioIo::new(upgraded)))
}

impl Line {
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpError> {
        let Self { sender, connection, is_open, .. } = self;
        let answering = async {
            poll_fn(|cx| sender.poll_ready(cx)).await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        let mut answering = pin!(answering);
        tokio::select! {
            biased;
            answered = answering.as_mut() => return answered,
            ended = Pin::new(connection) => {
                *is_open = false;
                ended?;
            }
        }
        // What came before the end of the connection is there, or an error.
        answering.await
    }
}

fn host_of(uri: &Uri) -> Result<&str, HttpError> {
    uri.host().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput).into())
}

/// An address of IPv6 stands in brackets in a URL, and nowhere else.
fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// The user and password in a URL, as HTTP's basic authentication says them. The library writes them so for a proxy's URL.
fn credentials(endpoint: &Uri) -> Option<HeaderValue> {
    let (user, _) = endpoint.authority()?.as_str().rsplit_once('@')?;
    let matcher = Matcher::builder().http(format!("http://{user}@localhost")).build();
    matcher.intercept(&Uri::from_static("http://collector"))?.basic_auth().cloned()
}

impl HttpClient for Client {
    fn send_bytes<'a, 'f>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(self.send(request))
    }
}

impl fmt::Debug for Client {
    /// Shows nothing: the URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
