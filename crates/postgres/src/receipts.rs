//! What makes a second time harmless, as readers ask for it: receipts of batches, replies under a key, messages that were
//! handled. What is older than some days counts as absent at once; its row goes later, see `upkeep`.

use bytes::Bytes;
use deadpool_postgres::Client;
use jiff::SignedDuration;
use purista_core::id::Id;
use purista_events::batch::{RECEIPTS_KEPT_DAYS, Receipt, ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::store::StoreError;
use purista_events::subscriptions::SubscriptionId;

use crate::error::{corrupt, read_failed};
use crate::fetch::rows;
use crate::{codec, known};

/// What was recorded at this time or before is forgotten.
pub(crate) fn forgotten_before(now: i64) -> i64 {
    let kept = SignedDuration::from_hours(RECEIPTS_KEPT_DAYS * 24).as_nanos();
    now.saturating_sub(i64::try_from(kept).unwrap_or(i64::MAX))
}

/// The receipt of the first commit of this id.
pub(crate) async fn receipt(client: &Client, id: &Id, now: i64) -> Result<Option<Receipt>, StoreError> {
    let what = "read of a receipt";
    let rows = rows(client, known::RECEIPTS, &[&vec![codec::id(id)]], what).await?;
    let found = rows.first().map(known::receipt).transpose().map_err(read_failed(what))?.flatten();
    let before = codec::timestamp(forgotten_before(now));
    Ok(found.map(|(_, receipt)| receipt).filter(|receipt| receipt.recorded_at > before))
}

/// The reply that is kept under a key.
pub(crate) async fn reply(
    client: &Client,
    tenant: Option<&str>,
    key: &ReplyKey,
    now: i64,
) -> Result<Option<StoredReply>, StoreError> {
    let what = "read of a reply";
    let sql = "SELECT fingerprint, body, event_name FROM replies \
               WHERE tenant = $1 AND scope = $2 AND key = $3 AND recorded_at > $4";
    let (tenant, before) = (codec::tenant_key(tenant), forgotten_before(now));
    let rows = rows(client, sql, &[&tenant, &codec::text(&key.scope), &codec::text(&key.key), &before], what)
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let read =
        || -> Result<_, tokio_postgres::Error> { Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)) };
    let (fingerprint, body, event_name): (&[u8], Option<&[u8]>, Option<&str>) =
        read().map_err(read_failed(what))?;
    let fingerprint = fingerprint.try_into().map_err(|_| corrupt("a reply's fingerprint is not 16 bytes"))?;
    Ok(Some(StoredReply {
        key: key.clone(),
        fingerprint: Fingerprint(fingerprint),
        body: body.map(Bytes::copy_from_slice),
        event_name: event_name.map(|name| codec::text_of(name).into()),
    }))
}

/// Whether a message of a bridge was handled for a subscription.
pub(crate) async fn is_consumed(
    client: &Client,
    subscription: &SubscriptionId,
    message: &Id,
    now: i64,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM consumed WHERE subscription = $1 AND message = $2 AND recorded_at > $3";
    let (subscription, message) = (codec::text(subscription.as_str()), codec::id(message));
    let rows =
        rows(client, sql, &[&subscription, &message, &forgotten_before(now)], "read of a message").await?;
    Ok(!rows.is_empty())
}
