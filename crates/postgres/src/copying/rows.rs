//! Rows that are kept beside the events, as they are written.

use std::collections::BTreeMap;

use purista_events::kept::{Kept, Part};
use purista_events::subscriptions::{DeadLetter, Parked};
use tokio::sync::mpsc;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Transaction};

use crate::flight::{Blob, Column};
use crate::write::column;
use crate::{codec, write};

const EMPTY: &str = "DELETE FROM state; DELETE FROM replies; DELETE FROM batches; DELETE FROM consumed; DELETE FROM progress; \
     DELETE FROM progress_done; DELETE FROM parked; DELETE FROM pauses; DELETE FROM dead_letters; DELETE FROM snapshots; \
     UPDATE log SET state_versions_forgotten = 0";
const CONSUMED: &str = "INSERT INTO consumed (subscription, message, recorded_at) \
     SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[])";
const DONE: &str =
    "INSERT INTO progress_done (subscription, position) SELECT * FROM unnest($1::text[], $2::bigint[])";
const SNAPSHOTS: &str = "INSERT INTO snapshots (name, version, tenant, query, position, taken_at, body) \
     SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bytea[])";
const FORGOTTEN: &str = "UPDATE log SET state_versions_forgotten = $1";

/// Writes these rows in place of all that are there.
pub(super) async fn replace(
    transaction: &Transaction<'_>,
    mut pages: mpsc::Receiver<Vec<Kept>>,
) -> Result<(), Error> {
    transaction.batch_execute(EMPTY).await?;
    while let Some(page) = pages.recv().await {
        let mut parts: BTreeMap<Part, Vec<Kept>> = BTreeMap::new();
        for row in page {
            parts.entry(row.part()).or_default().push(row);
        }
        for (part, rows) in &parts {
            write(transaction, *part, rows).await?;
        }
    }
    Ok(())
}

async fn write(transaction: &Transaction<'_>, part: Part, rows: &[Kept]) -> Result<(), Error> {
    match part {
        Part::State => state(transaction, rows).await,
        Part::Replies => run(transaction, write::REPLIES, replies(rows)).await,
        Part::Receipts => run(transaction, write::RECEIPTS, receipts(rows)).await,
        Part::Messages => run(transaction, CONSUMED, consumed(rows)).await,
        Part::Subscriptions => subscriptions(transaction, rows).await,
        Part::DeadLetters => {
            let letters: Vec<&DeadLetter> = rows.iter().filter_map(letter).collect();
            run(transaction, write::LETTERS, write::letters(&letters)).await
        }
        Part::Snapshots => run(transaction, SNAPSHOTS, snapshots(rows)).await,
    }
}

async fn run(transaction: &Transaction<'_>, sql: &str, columns: Vec<Column<'static>>) -> Result<(), Error> {
    let values: Vec<&(dyn ToSql + Sync)> =
        columns.iter().map(|column| &**column as &(dyn ToSql + Sync)).collect();
    transaction.execute(sql, &values).await.map(drop)
}

fn text(text: &str) -> String {
    codec::text(text).into_owned()
}

fn blob(id: &purista_core::id::Id) -> Blob {
    codec::id(id).into()
}

async fn state(transaction: &Transaction<'_>, rows: &[Kept]) -> Result<(), Error> {
    let found = rows.iter().filter_map(|kept| if let Kept::State(row) = kept { Some(row) } else { None });
    let found: Vec<_> = found.collect();
    let columns = vec![
        column(found.iter().map(|row| codec::tenant_key(row.tenant.as_deref()).into_owned())),
        column(found.iter().map(|row| text(&row.key))),
        column(found.iter().map(|row| row.value.clone())),
        column(found.iter().map(|row| codec::signed(row.version))),
        column(found.iter().map(|row| row.expires_at.map(codec::nanoseconds))),
    ];
    run(transaction, write::STATE, columns).await?;
    for kept in rows {
        if let Kept::StateVersionsForgotten(version) = kept {
            transaction.execute(FORGOTTEN, &[&codec::signed(*version)]).await?;
        }
    }
    Ok(())
}

fn replies(rows: &[Kept]) -> Vec<Column<'static>> {
    let found = rows.iter().filter_map(|kept| match kept {
        Kept::Reply { tenant, reply, recorded_at } => Some((tenant, reply, recorded_at)),
        _ => None,
    });
    let found: Vec<_> = found.collect();
    vec![
        column(found.iter().map(|(tenant, ..)| codec::tenant_key(tenant.as_deref()).into_owned())),
        column(found.iter().map(|(_, reply, _)| text(&reply.key.scope))),
        column(found.iter().map(|(_, reply, _)| text(&reply.key.key))),
        column(found.iter().map(|(_, reply, _)| Blob::from(reply.fingerprint.0.to_vec()))),
        column(found.iter().map(|(_, reply, _)| reply.body.clone().map(Blob))),
        column(found.iter().map(|(_, reply, _)| reply.event_name.as_deref().map(text))),
        column(found.iter().map(|(.., recorded_at)| codec::nanoseconds(**recorded_at))),
    ]
}

fn receipts(rows: &[Kept]) -> Vec<Column<'static>> {
    let found =
        rows.iter().filter_map(|kept| if let Kept::Receipt(receipt) = kept { Some(receipt) } else { None });
    let found: Vec<_> = found.collect();
    vec![
        column(found.iter().map(|receipt| blob(&receipt.id))),
        column(found.iter().map(|receipt| codec::nanoseconds(receipt.recorded_at))),
        column(found.iter().map(|receipt| codec::signed(receipt.position.number()))),
        column(found.iter().map(|receipt| i32::try_from(receipt.positions.len()).unwrap_or(i32::MAX))),
        column(found.iter().map(|receipt| codec::versions(receipt))),
    ]
}

fn consumed(rows: &[Kept]) -> Vec<Column<'static>> {
    let found = rows.iter().filter_map(|kept| match kept {
        Kept::Consumed { subscription, message, recorded_at } => Some((subscription, message, recorded_at)),
        _ => None,
    });
    let found: Vec<_> = found.collect();
    vec![
        column(found.iter().map(|(subscription, ..)| text(subscription.as_str()))),
        column(found.iter().map(|(_, message, _)| blob(message))),
        column(found.iter().map(|(.., recorded_at)| codec::nanoseconds(**recorded_at))),
    ]
}

fn letter(kept: &Kept) -> Option<&DeadLetter> {
    if let Kept::DeadLetter(letter) = kept { Some(letter) } else { None }
}

fn snapshots(rows: &[Kept]) -> Vec<Column<'static>> {
    let found = rows
        .iter()
        .filter_map(|kept| if let Kept::Snapshot(snapshot) = kept { Some(snapshot) } else { None });
    let found: Vec<_> = found.collect();
    vec![
        column(found.iter().map(|snapshot| text(&snapshot.key.name))),
        column(found.iter().map(|snapshot| i64::from(snapshot.key.version))),
        column(found.iter().map(|snapshot| codec::tenant_key(snapshot.key.tenant.as_deref()).into_owned())),
        column(found.iter().map(|snapshot| Blob::from(snapshot.key.query.0.to_vec()))),
        column(found.iter().map(|snapshot| codec::signed(snapshot.position.number()))),
        column(found.iter().map(|snapshot| codec::nanoseconds(snapshot.taken_at))),
        column(found.iter().map(|snapshot| Blob(snapshot.body.clone()))),
    ]
}

async fn subscriptions(transaction: &Transaction<'_>, rows: &[Kept]) -> Result<(), Error> {
    for kept in rows {
        let Kept::Subscription(id, record) = kept else { continue };
        let name = text(id.as_str());
        let low = codec::signed(record.progress.low.number());
        run(transaction, write::LOWS, vec![Box::new(vec![name.clone()]), Box::new(vec![low])]).await?;
        let done: Vec<i64> =
            record.progress.done.iter().map(|position| codec::signed(position.number())).collect();
        run(transaction, DONE, vec![Box::new(vec![name.clone(); done.len()]), Box::new(done)]).await?;
        let parked: Vec<&Parked> = record.parked.iter().collect();
        run(transaction, write::PARKED, write::parked(&parked)).await?;
        if let Some(pause) = &record.pause {
            let columns: Vec<Column<'static>> = vec![
                Box::new(vec![name]),
                Box::new(vec![codec::nanoseconds(pause.since)]),
                Box::new(vec![text(&pause.reason)]),
            ];
            run(transaction, write::PAUSES, columns).await?;
        }
    }
    Ok(())
}
