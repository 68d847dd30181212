//! What takes a planner or the store to answer. Runs beside the leader's loop, on copies of what it needs.

use super::core::{Described, Event, Replan, RequestId};
use super::mailbox::Response;
use super::stores::{Place, Stores};
use crate::manifests::savepoint;
use crate::meta::{CheckpointRecord, Job, Submitted};
use crate::planner::{self, ModelInspector, PlanOptions};
use ef_proto::checkpoint::Manifest;
use ef_proto::error::{Code, Error};
use ef_proto::ids::{Epoch, JobId, OperatorId};
use ef_proto::job_config::JobConfig;
use ef_proto::plan::{self, Model, Plan};
use ef_proto::schema::Schema;
use ef_proto::wire::generated::control::*;
use ef_store::Options;
use std::collections::BTreeMap;
use std::sync::Arc;

type Result<T> = std::result::Result<T, Error>;

/// Of a submission. Far more than people write, and small enough for an entry of the log.
const SQL_BYTES_MAX: usize = 256 << 10;

/// Of the plan that a submission becomes.
const PLAN_BYTES_MAX: usize = 384 << 10;

/// What the submitter's inference runtime said of its model files, and what its descriptor files hold: this process has
/// neither.
struct Models(BTreeMap<String, Vec<u8>>);

impl ModelInspector for Models {
    fn inspect(
        &self,
        path: &str,
        _inputs: &Schema,
        _outputs: &Schema,
        _options: &BTreeMap<String, String>,
    ) -> std::result::Result<Model, String> {
        let model = self.0.get(path);
        let model =
            model.ok_or_else(|| format!("nothing is known of `{path}`; submit with `efctl submit`, which reads it"))?;
        Model::decode(model).map_err(|error| error.message)
    }

    fn descriptor(&self, path: &str, message: &str) -> std::result::Result<String, String> {
        let found = self.0.get(&planner::descriptor_key(path, message)).cloned();
        let found = found.and_then(|text| String::from_utf8(text).ok());
        found.ok_or_else(|| format!("nothing is known of `{path}`; submit with `efctl submit`, which reads it"))
    }
}

/// Plans a submission, finds what it starts from, and copies that into the job's root.
pub async fn submit(
    id: RequestId,
    stores: Arc<Stores>,
    request: SubmitRequest,
    job: JobId,
    from: Option<String>,
    state: String,
    now: u64,
) -> Result<Event> {
    let SubmitRequest { sql, name, vars, parallelism, allow_non_restored_state, dry_run, models, .. } = request;
    if sql.len() > SQL_BYTES_MAX {
        let length = sql.len();
        return Err(Error::invalid(format!("the SQL has {length} bytes; at most {SQL_BYTES_MAX} are accepted")));
    }
    let name = if name.is_empty() { "job".to_string() } else { name };
    let options = PlanOptions { name, parallelism, overrides: BTreeMap::new() };
    let planned = make_plan(sql.clone(), vars.clone(), options, models.clone()).await?;
    let encoded = planned.encode();
    if encoded.len() > PLAN_BYTES_MAX {
        let length = encoded.len();
        return Err(Error::invalid(format!("the plan has {length} bytes; at most {PLAN_BYTES_MAX} are accepted")));
    }
    let config = JobConfig::parse(&planned.config).map_err(|error| Error::invalid(error.to_string()))?;
    let state = config.checkpoints.dir.unwrap_or(state);
    let place = Place::of(&state, &encoded)?;
    stores.check(&place).await?;
    let restored = match &from {
        None => None,
        Some(path) => {
            let (root, manifest) = savepoint::load(path, place.options()).await?;
            savepoint::check(&manifest, &planned, allow_non_restored_state)?;
            Some((root, manifest))
        }
    };
    let mapping = restored.as_ref().map(|(_, manifest)| savepoint::mapping(manifest, &planned)).unwrap_or_default();
    let shown = if dry_run { String::new() } else { job.0.clone() };
    let response = Response::Submit(SubmitResponse {
        job: shown,
        name: planned.name.clone(),
        plan: plan::text(&planned),
        mapping,
    });
    let mut restore = None;
    if let (Some((root, manifest)), false) = (&restored, dry_run) {
        let manifests = stores.job(&job, place).await?;
        manifests.import(root, manifest).await?;
        // State that has no operator any more stays behind.
        let kept = manifest.operators.iter().filter(|old| planned.operator(old.id).is_some()).cloned().collect();
        let manifest = Manifest { operators: kept, terminal: false, ..manifest.clone() };
        manifests.put_recorded(&manifest).await?;
        restore = Some((from.unwrap_or_default(), record(&manifest, now)));
    }
    let models = models.into_iter().map(|(path, model)| (path, hex(&model))).collect();
    let name = planned.name;
    let submitted = Submitted { job, at_ms: now, name, sql, vars, models, parallelism, plan: encoded, state, restore };
    Ok(Event::Planned { id, dry_run, submitted: Box::new(submitted), response })
}

fn record(manifest: &Manifest, now: u64) -> CheckpointRecord {
    CheckpointRecord {
        epoch: manifest.epoch,
        cause: "restored".into(),
        triggered_at_ms: manifest.triggered_at_ms.max(0) as u64,
        completed_at_ms: now,
        bytes: manifest.files().map(|file| file.bytes).sum(),
        new_bytes: 0,
    }
}

/// The same SQL at another parallelism.
pub async fn replan(id: RequestId, job: Job, request: RescaleJobRequest) -> Result<Event> {
    let mut overrides = job.overrides.clone();
    if request.parallelism.is_some() {
        overrides.clear(); // for all operators but those named
    }
    for (operator, parallelism) in &request.operators {
        let operator = u64::from_str_radix(operator, 16)
            .map_err(|_| Error::invalid(format!("`{operator}` is not an operator's id")))?;
        overrides.insert(OperatorId(operator), *parallelism);
    }
    let parallelism = request.parallelism.or(job.parallelism);
    let old = Plan::decode(&job.plan)?;
    let options = PlanOptions { name: job.name.clone(), parallelism, overrides: overrides.clone() };
    let models = job.models.iter().map(|(path, model)| Ok((path.clone(), unhex(model)?))).collect::<Result<_>>()?;
    let planned = make_plan(job.sql.clone(), job.vars.clone(), options, models).await?;
    if planned.max_parallelism != old.max_parallelism {
        return Err(Error::new(Code::Internal, "the number of key groups has changed; it cannot"));
    }
    let plan = planned.encode();
    let replan = Box::new(Replan { plan, parallelism, overrides });
    Ok(Event::Replanned { id, job: job.id, dry_run: request.dry_run, replan })
}

pub async fn explain(request: ExplainRequest) -> Result<Response> {
    let ExplainRequest { sql, name, vars, parallelism, format, models } = request;
    let options = PlanOptions { name, parallelism, overrides: BTreeMap::new() };
    let planned = make_plan(sql, vars, options, models).await?;
    let text = match format.as_str() {
        "" | "text" => plan::text(&planned),
        "json" => serde_json::to_string_pretty(&planned)
            .map_err(|e| Error::new(Code::Internal, format!("cannot write the plan as JSON: {e}")))?,
        "dot" => plan::dot(&planned),
        other => return Err(Error::invalid(format!("format `{other}`; text, json and dot are accepted"))),
    };
    Ok(Response::Explain(ExplainResponse { text }))
}

pub async fn describe(
    stores: Arc<Stores>,
    what: Described,
    place: Option<Result<Place>>,
    names: BTreeMap<JobId, String>,
) -> Result<Response> {
    let (manifest, path) = match what {
        Described::Savepoint(_, path) => (savepoint::load(&path, &Options::default()).await?.1, path),
        Described::Checkpoint(request, job) => {
            let place = place.unwrap_or_else(|| Err(Error::new(Code::NotFound, "the job has gone")))?;
            let manifests = stores.job(&job, place).await?;
            let epoch = Epoch(request.epoch);
            let path = manifests.root().show(&ef_proto::checkpoint::path::manifest(epoch)).to_string();
            (manifests.get(epoch).await?, path)
        }
    };
    let mut described = crate::manifests::describe(&manifest);
    described.path = path;
    described.job_name = names.get(&manifest.job).cloned().unwrap_or_default();
    Ok(Response::State(described))
}

/// The planner recurses and takes its time: not for the runtime's threads.
async fn make_plan(
    sql: String,
    vars: BTreeMap<String, String>,
    options: PlanOptions,
    models: BTreeMap<String, Vec<u8>>,
) -> Result<Plan> {
    let work = move || planner::plan(&sql, &vars, options, &Models(models)).map_err(|e| Error::invalid(e.to_string()));
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new(Code::Internal, format!("planning: {e}")))?
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let pair = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(pair).collect();
    bytes.ok_or_else(|| Error::corrupt("a model in the coordinator's state does not read back"))
}
