//! S3, served by `s3s` from a temporary directory.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::guard::{Gate, Guard};
use crate::policy::Policy;
use crate::versions::{Keeping, VersionedBucket};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// What the server does wrong. Set any of it at any time; 0 turns it off.
#[derive(Debug, Default)]
pub struct S3Faults {
    /// One request in so many is answered `500 InternalError`, without being done.
    pub internal_error_one_in: AtomicU64,
    /// One request in so many is answered `503 SlowDown`, without being done.
    pub slow_down_one_in: AtomicU64,
    /// One request in so many is done, and answered `500 InternalError`.
    pub lost_answer_one_in: AtomicU64,
    /// One answer with a body in so many ends half-way, and the connection with it.
    pub cut_one_in: AtomicU64,
    /// Each request takes this much longer.
    pub latency_ms: AtomicU64,
    requests: AtomicU64,
    puts_with_checksum: AtomicU64,
    root: PathBuf,
}

impl S3Faults {
    fn is_directory(&self, path: &str) -> bool {
        self.root.join(path.trim_matches('/')).is_dir()
    }

    fn hits(&self, one_in: &AtomicU64, request: u64) -> bool {
        match one_in.load(Ordering::Relaxed) {
            0 => false,
            // Scattered, so that the requests of one operation do not fall into step with it.
            n => (request.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33).is_multiple_of(n),
        }
    }
}

const BUCKET: &str = "bucket";

/// A server with one empty bucket.
#[derive(Debug)]
pub struct S3Server {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    /// The access key id.
    pub access: String,
    /// The secret access key.
    pub secret: String,
    /// The bucket.
    pub bucket: String,
    faults: Arc<S3Faults>,
    guard: Arc<Guard>,
    directory: TempDir,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// Starts a server.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join(BUCKET)).expect("a bucket");
        let files = s3s_fs::FileSystem::new(directory.path()).expect("a directory to serve");
        Self::serving(S3ServiceBuilder::new(files), directory)
    }

    /// Starts a server whose bucket is in memory and keeps what is overwritten or deleted, as `keeping` says.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start_keeping(keeping: Keeping) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::serving(S3ServiceBuilder::new(VersionedBucket::new(keeping)), directory)
    }

    fn serving(mut service: S3ServiceBuilder, directory: TempDir) -> Self {
        let (access, secret, bucket) = ("SNAPTESTACCESS", "snap-test-secret-key", BUCKET);
        let guard = Arc::new(Guard::default());
        guard.add(access, secret, None);
        service.set_auth(Gate(Arc::clone(&guard)));
        service.set_access(Gate(Arc::clone(&guard)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("s3-server")
            .enable_all()
            .build()
            .expect("a runtime");
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = runtime.block_on(TcpListener::bind(local)).expect("a port");
        let address = listener.local_addr().expect("a bound address");
        let faults = Arc::new(S3Faults { root: directory.path().to_owned(), ..Default::default() });
        let server = Server { service: service.build(), faults: faults.clone(), guard: guard.clone() };
        runtime.spawn(serve(listener, server));
        Self {
            endpoint: format!("http://{address}"),
            access: access.to_owned(),
            secret: secret.to_owned(),
            bucket: bucket.to_owned(),
            faults,
            guard,
            directory,
            runtime: Some(runtime),
        }
    }

    /// `s3://bucket/PREFIX?endpoint=…&region=…`.
    #[must_use]
    pub fn uri(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}?endpoint={}&region=us-east-1", self.bucket, self.endpoint)
    }

    /// The credentials as environment variables.
    #[must_use]
    pub fn credentials(&self) -> [(&'static str, String); 2] {
        [("AWS_ACCESS_KEY_ID", self.access.clone()), ("AWS_SECRET_ACCESS_KEY", self.secret.clone())]
    }

    /// Credentials, as environment variables, of somebody who may do what `policy` allows and nothing else: a document
    /// as Amazon's IAM takes it. The user who was there at the start may do everything.
    ///
    /// As on Amazon, an object that is not there is "denied" to whoever may not list the whole bucket.
    ///
    /// # Panics
    ///
    /// If the policy uses what is not enforced here.
    #[must_use]
    pub fn add_user(&self, name: &str, policy: &str) -> [(&'static str, String); 2] {
        let secret = format!("secret-key-of-{name}");
        self.guard.add(name, &secret, Some(Policy::parse(policy)));
        [("AWS_ACCESS_KEY_ID", name.to_owned()), ("AWS_SECRET_ACCESS_KEY", secret)]
    }

    /// What the server does wrong.
    #[must_use]
    pub fn faults(&self) -> &S3Faults {
        &self.faults
    }

    /// How many requests have come in.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.faults.requests.load(Ordering::SeqCst)
    }

    /// How many of the PUTs carried a checksum of their content.
    #[must_use]
    pub fn puts_with_checksum(&self) -> u64 {
        self.faults.puts_with_checksum.load(Ordering::SeqCst)
    }

    /// The file of an object, for tests that damage or remove it behind the server's back.
    #[must_use]
    pub fn object_path(&self, key: &str) -> PathBuf {
        self.bucket_path().join(key)
    }

    /// The directory of the bucket.
    #[must_use]
    pub fn bucket_path(&self) -> PathBuf {
        let root: &Path = self.directory.path();
        root.join(&self.bucket)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What each connection needs.
#[derive(Clone)]
struct Server {
    service: S3Service,
    faults: Arc<S3Faults>,
    guard: Arc<Guard>,
}

async fn serve(listener: TcpListener, server: Server) {
    while let Ok((socket, _)) = listener.accept().await {
        let server = server.clone();
        let handler = service_fn(move |request| answer(server.clone(), request));
        tokio::spawn(async move {
            // How a connection ends is the client's affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), handler)
                .await;
        });
    }
}

async fn answer(server: Server, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let Server { service, faults, guard } = server;
    let number = faults.requests.fetch_add(1, Ordering::SeqCst) + 1;
    let checksum = |name: &str| name.starts_with("x-amz-checksum-") || name == "content-md5";
    if request.method() == "PUT" && request.headers().keys().any(|name| checksum(name.as_str())) {
        faults.puts_with_checksum.fetch_add(1, Ordering::SeqCst);
    }
    let latency = faults.latency_ms.load(Ordering::Relaxed);
    if latency > 0 {
        tokio::time::sleep(Duration::from_millis(latency)).await;
    }
    if faults.hits(&faults.slow_down_one_in, number) {
        return Ok(failure(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"));
    }
    if faults.hits(&faults.internal_error_one_in, number) {
        return Ok(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
    }
    // s3s-fs fails on them; a bucket has no directories.
    let reads = matches!(request.method().as_str(), "GET" | "HEAD") && request.uri().query().is_none();
    let hides = !guard.tells_what_is_missing(&request);
    if reads && faults.is_directory(request.uri().path()) {
        let (status, code) = [(StatusCode::NOT_FOUND, "NoSuchKey"), DENIED][usize::from(hides)];
        return Ok(failure(status, code));
    }
    let is_head = request.method() == "HEAD";
    let is_read = is_head || request.method() == "GET";
    let Ok(done) = service.call(request.map(s3s::Body::from)).await else {
        return Ok(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
    };
    if hides && is_read && done.status() == StatusCode::NOT_FOUND {
        return Ok(failure(DENIED.0, DENIED.1));
    }
    if faults.hits(&faults.lost_answer_one_in, number) {
        return Ok(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
    }
    if !is_head && done.status().is_success() && faults.hits(&faults.cut_one_in, number) {
        return Ok(cut(done).await);
    }
    Ok(done.map(BodyExt::boxed_unsync))
}

const DENIED: (StatusCode, &str) = (StatusCode::FORBIDDEN, "AccessDenied");

fn failure(status: StatusCode, code: &str) -> Answer {
    let text = format!("<Error><Code>{code}</Code><Message>injected</Message></Error>");
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    // The body of the request was not read, so the connection cannot be used again.
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

/// Announces the whole body, sends half of it, and breaks off.
async fn cut(response: Response<s3s::Body>) -> Answer {
    let (mut parts, body) = response.into_parts();
    let whole = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => Bytes::new(),
    };
    parts.headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from(whole.len()));
    let half = (!whole.is_empty()).then(|| whole.slice(..whole.len() / 2));
    let body = CutBody { half, announced: whole.len() as u64 };
    Response::from_parts(parts, body.boxed_unsync())
}

struct CutBody {
    half: Option<Bytes>,
    announced: u64,
}

impl Body for CutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        std::task::Poll::Ready(match self.half.take() {
            Some(half) => Some(Ok(Frame::data(half))),
            None if self.announced == 0 => None,
            None => Some(Err("injected".into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.announced == 0
    }
}
