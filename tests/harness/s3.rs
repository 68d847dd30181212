//! An S3 server on this machine: `s3s-fs` over a directory, with what it lacks for our promises. Puts are one at a
//! time, because it checks a condition and acts on it in two steps; it can go down and come back on the same port; and
//! it can be of the kind that ignores `If-None-Match`.

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result};
use s3s_fs::FileSystem;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub const BUCKET: &str = "states";
pub const ACCESS_KEY: &str = "ef-test-access";
pub const SECRET_KEY: &str = "ef-test-secret-6f1d0c";

pub struct Server {
    directory: tempfile::TempDir,
    service: S3Service,
    address: SocketAddr,
    /// None while it is down.
    runtime: Option<Runtime>,
}

impl Server {
    pub fn start() -> Server {
        Server::with(false)
    }

    /// It overwrites objects whatever the request's conditions say.
    pub fn start_ignoring_conditions() -> Server {
        Server::with(true)
    }

    fn with(ignores_conditions: bool) -> Server {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join(BUCKET)).expect("it is ours");
        let files = FileSystem::new(directory.path()).expect("a directory");
        let root = directory.path().to_path_buf();
        let store = Store { root, files, put: tokio::sync::Mutex::new(()), ignores_conditions };
        let mut builder = S3ServiceBuilder::new(store);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let [port] = crate::servers::ports::free(1)[..] else { unreachable!("one was asked for") };
        let mut server = Server {
            directory,
            service: builder.build(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            runtime: None,
        };
        server.up();
        server
    }

    /// Goes down: connections break, new ones are refused.
    pub fn down(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits for the listener to go, so that the port is free for the next.
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }

    /// Comes (back) up, on the port it had.
    pub fn up(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let listener = runtime.block_on(TcpListener::bind(self.address)).expect("the port is free");
        self.address = listener.local_addr().expect("it is bound");
        let service = self.service.clone();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(socket), service.clone()));
            }
        });
        self.runtime = Some(runtime);
    }

    /// SET statements that lead a job here; the keys are in the environment of [`Server::environment`].
    pub fn options(&self) -> String {
        format!(
            "SET 'state.store.endpoint' = 'http://{}';
             SET 'state.store.access-key' = 'env:EF_TEST_ACCESS';
             SET 'state.store.secret-key' = 'env:EF_TEST_SECRET';
             ",
            self.address
        )
    }

    pub fn environment(&self) -> [(&'static str, &'static str); 2] {
        [("EF_TEST_ACCESS", ACCESS_KEY), ("EF_TEST_SECRET", SECRET_KEY)]
    }

    /// Where an object lies as a file.
    pub fn file(&self, object: &str) -> PathBuf {
        self.directory.path().join(BUCKET).join(object)
    }

    /// Keys of all objects in the bucket, sorted.
    pub fn objects(&self) -> Vec<String> {
        let bucket = self.directory.path().join(BUCKET);
        let mut found = Vec::new();
        files(&bucket, &mut found);
        let key = |file: &PathBuf| file.strip_prefix(&bucket).expect("below").to_string_lossy().into_owned();
        let mut keys: Vec<String> = found.iter().map(key).collect();
        keys.sort();
        keys
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    // What is listed may be deleted meanwhile.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}

#[derive(Debug)]
struct Store {
    root: PathBuf,
    files: FileSystem,
    put: tokio::sync::Mutex<()>,
    ignores_conditions: bool,
}

#[async_trait::async_trait]
impl S3 for Store {
    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let _one_at_a_time = self.put.lock().await;
        // Left to itself it would make the bucket.
        if !self.root.join(&request.input.bucket).is_dir() {
            return Err(s3s::s3_error!(NoSuchBucket, "the bucket does not exist"));
        }
        if self.ignores_conditions {
            request.input.if_none_match = None;
        }
        self.files.put_object(request).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let _one_at_a_time = self.put.lock().await;
        self.files.complete_multipart_upload(request).await
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.files.create_multipart_upload(request).await
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.files.upload_part(request).await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.files.abort_multipart_upload(request).await
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.files.get_object(request).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.files.head_object(request).await
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.files.delete_object(request).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.files.delete_objects(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.files.list_objects_v2(request).await
    }
}
