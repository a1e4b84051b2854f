use serde_json::json;
use snap_engine::stats;
use snap_repo::Index;

use super::{Done, Outcome};
use crate::app::App;
use crate::render::{json, text};
use crate::repo;

pub fn run(app: &App) -> Outcome {
    let opened = repo::open(app, repo::Purpose::Reading)?;
    let (index, findings) = Index::load(&opened.repository, opened.cache.as_ref())?;
    for finding in &findings {
        app.out.finding(finding);
    }
    if let Some(text) = index.cache_failure() {
        app.out.warning(&text);
    }
    let stats = stats(&opened.repository, &index)?;
    let rows = [
        ("snapshots", text::count(stats.snapshots)),
        ("their size at the source", text::bytes(stats.source_bytes)),
        ("distinct data", text::bytes(stats.plain_bytes)),
        ("stored", text::bytes(stats.stored_bytes)),
        ("packs", text::count(stats.packs)),
        ("blobs", text::count(stats.blobs)),
        ("index objects", text::count(stats.index_objects)),
    ];
    for (name, value) in rows {
        app.out.line(&format!("{name:<25} {value:>14}"));
    }
    Ok(Done::with(json::object(json!({
        "repository_id": opened.repository.id().to_hex(),
        "snapshots": stats.snapshots,
        "packs": stats.packs,
        "blobs": stats.blobs,
        "index_objects": stats.index_objects,
        "stored_bytes": stats.stored_bytes,
        "plain_bytes": stats.plain_bytes,
        "source_bytes": stats.source_bytes,
    }))))
}
