//! Puts that go wrong, stores that cannot be relied on, large objects, and names in every kind of place.

use super::*;
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutResult,
};
use std::sync::Mutex;

/// What happens to the next put.
#[derive(Clone, Copy, Debug)]
enum Fault {
    LoseRequest,
    LoseAnswer,
}

/// A store in memory whose puts go wrong as told.
#[derive(Debug, Default)]
struct Faulty {
    inner: InMemory,
    faults: Mutex<Vec<Fault>>,
    /// Like some that speak S3's protocol.
    ignores_conditions: bool,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "Faulty", source: "no answer".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let fault = self.faults.lock().expect("no panics").pop();
        if let Some(Fault::LoseRequest) = fault {
            return Err(lost());
        }
        if self.ignores_conditions {
            options.mode = PutMode::Overwrite;
        }
        let result = self.inner.put_opts(location, payload, options).await;
        if fault.is_some() { Err(lost()) } else { result }
    }

    async fn put_multipart_opts(
        &self,
        location: &ObjectPath,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<ObjectPath>>,
    ) -> BoxStream<'static, object_store::Result<ObjectPath>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn faulty(faults: &[Fault], ignores_conditions: bool) -> Root {
    let faults = Mutex::new(faults.iter().rev().copied().collect());
    let store = Arc::new(Faulty { faults, ignores_conditions, ..Faulty::default() });
    Root { store, prefix: "prefix".into(), local: None }
}

#[tokio::test]
async fn put_whose_answer_or_request_was_lost_is_settled_by_what_is_there() {
    for faults in [&[Fault::LoseAnswer][..], &[Fault::LoseRequest], &[Fault::LoseRequest, Fault::LoseAnswer]] {
        let root = faulty(faults, false);
        assert_eq!(root.create("a", "mine".into()).await, Ok(Created::Ours), "{faults:?}");
        assert_eq!(root.read("a").await, Ok("mine".into()));
        assert_eq!(root.create("a", "yours".into()).await, Ok(Created::Theirs));
        assert_eq!(root.read("a").await, Ok("mine".into()));
    }
    let root = faulty(&[Fault::LoseRequest; ATTEMPTS], false);
    let error = root.create("a", "mine".into()).await.expect_err("never arrives");
    assert!(error.code == Code::Unavailable && error.message.contains("no answer"), "{error}");
}

#[tokio::test]
async fn store_that_ignores_the_condition_is_refused() {
    let error = faulty(&[], true).probe(7).await.expect_err("it overwrites");
    assert!(error.code == Code::Invalid && error.message.contains("If-None-Match"), "{error}");
    let good = faulty(&[Fault::LoseAnswer], false);
    assert_eq!(good.probe(7).await, Ok(()));
    assert_eq!(good.names("").await, Ok(vec![]), "the probe leaves nothing");
}

#[tokio::test]
async fn large_object_goes_up_in_parts_and_is_not_overwritten() {
    let root = faulty(&[], false);
    let large = |byte: u8| Bytes::from(vec![byte; 2 * PART_BYTES + 1]);
    assert_eq!(root.create("a", large(1)).await, Ok(Created::Ours));
    assert_eq!(root.create("a", large(1)).await, Ok(Created::Ours), "the same again");
    assert_eq!(root.create("a", large(2)).await, Ok(Created::Theirs));
    assert!(root.read("a").await.expect("it is there") == large(1));
}

#[tokio::test]
async fn what_killed_puts_have_left_is_no_object_and_can_be_found_and_deleted() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let root = Root::open(&Location::Directory(scratch.path().into()), &Options::default(), Patience::Full);
    let root = root.expect("usable").below("jobs/a");
    root.create("x/y", "1".into()).await.expect("creates");
    for name in ["x/y#1", "x/z#27", "x/no#", "x/none#1a"] {
        std::fs::write(root.local.as_ref().expect("a directory").join(name), "hal").expect("writable");
    }
    let mut found = root.half_written("x").await.expect("lists");
    found.sort();
    assert_eq!(found, ["x/y#1", "x/z#27"]);
    for path in &found {
        root.delete(path).await.expect("deletes");
        root.delete(path).await.expect("gone already");
    }
    assert_eq!(root.half_written("").await, Ok(vec![]));
    assert_eq!(root.read("x/y").await, Ok("1".into()));
    assert_eq!(root.half_written("nowhere").await, Ok(vec![]));
}

#[tokio::test]
async fn names_are_below_the_place_wherever_it_is() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let local = Location::parse(scratch.path().to_str().expect("utf-8")).expect("a directory");
    for location in [Location::Memory, local] {
        let root = Root::open_checked(&location, &Options::default(), 7).await.expect("usable");
        root.create("jobs/b/x", "1".into()).await.expect("creates");
        root.create("jobs/a/x/y", "2".into()).await.expect("creates");
        assert_eq!(root.directories("jobs").await, Ok(vec!["a".into(), "b".into()]), "{location}");
        assert_eq!(root.below("jobs/b").names("").await, Ok(vec!["x".into()]));
        assert_eq!(root.names("jobs/a").await, Ok(vec!["jobs/a/x/y".into()]));
        assert_eq!(root.below("jobs/b").exists("x").await, Ok(true));
        root.delete("jobs/b/x").await.expect("deletes");
        root.delete("jobs/b/x").await.expect("gone already");
        assert_eq!(root.below("jobs/b").exists("x").await, Ok(false));
        assert_eq!(root.read("jobs/b/x").await.expect_err("gone").code, Code::NotFound);
    }
}
