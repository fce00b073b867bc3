//! The rows that hold the usage of organizations: loaded at an opening, and counted anew if no earlier run has
//! counted them.

use std::collections::HashMap;
use std::time::Instant;

use crate::ids::TenantId;
use crate::store::engine::{Batch, Engine, EngineError};
use crate::store::format::keys::{self, KeyKind, MetaKey};
use crate::store::quota::usage::{Difference, Usage, VERSION, counted_key, is_counted};

/// Organizations whose usage is written in one batch when all rows are counted.
const COUNTED_AT_ONCE: usize = 10_000;

/// Loads every organization's usage. If no earlier run has counted the rows, it counts them first.
pub(crate) fn load(engine: &Engine) -> Result<Vec<(TenantId, Usage)>, EngineError> {
    if engine.get(&keys::meta(MetaKey::Usage))?.as_deref() != Some(&[VERSION]) {
        recount(engine)?;
    }
    let mut found = Vec::new();
    for row in engine.range(&[KeyKind::Usage as u8], &[KeyKind::Usage as u8 + 1]) {
        let (key, value) = row?;
        match (keys::parse(&key), Usage::read(&value)) {
            (Ok((_, tenant, _)), Some(usage)) => found.push((tenant, usage)),
            _ => return Err(EngineError::Engine("a usage row is damaged".into())),
        }
    }
    Ok(found)
}

/// The usage of every organization, counted from its rows.
pub(crate) fn count(engine: &Engine) -> Result<HashMap<TenantId, Usage>, EngineError> {
    let mut found = HashMap::<TenantId, Difference>::new();
    for kind in KeyKind::ALL.iter().copied().filter(|kind| is_counted(*kind)) {
        for row in engine.range(&[kind as u8], &[kind as u8 + 1]) {
            let (key, value) = row?;
            if let Some((kind, tenant)) = counted_key(&key) {
                found.entry(tenant).or_default().add(kind, key.len(), None, Some(value.len()));
            }
        }
    }
    let all = found.into_iter();
    Ok(all.map(|(tenant, difference)| (tenant, difference.applied_to(Usage::default()))).collect())
}

/// Counts all rows, and replaces the stored usage of every organization.
fn recount(engine: &Engine) -> Result<(), EngineError> {
    let started = Instant::now();
    let mut batch = Batch::default();
    for row in engine.range(&[KeyKind::Usage as u8], &[KeyKind::Usage as u8 + 1]) {
        batch.delete(&row?.0);
    }
    let found = count(engine)?;
    let organizations = found.len();
    for (at, (tenant, usage)) in found.into_iter().enumerate() {
        batch.put(keys::key(KeyKind::Usage, tenant, &[]), usage.write());
        if at % COUNTED_AT_ONCE == COUNTED_AT_ONCE - 1 {
            engine.apply(std::mem::take(&mut batch))?;
        }
    }
    batch.put(keys::meta(MetaKey::Usage), vec![VERSION]); // written last: without it everything is counted again
    engine.commit(batch)?;
    if organizations > 0 {
        tracing::info!(organizations, took = ?started.elapsed(), "counted the usage of all organizations; later starts need not count again");
    }
    Ok(())
}
