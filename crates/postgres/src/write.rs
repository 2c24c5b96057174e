//! What a group writes, as statements: one a table, however many batches there are.

use std::borrow::Cow;
use std::collections::BTreeSet;

use purista_core::trace::TraceContext;
use purista_events::batch::StoredReply;
use purista_events::subscriptions::{DeadLetter, DeadLetterSource, Parked};

use crate::codec;
use crate::decision::{Decided, NewReceipt, Placed};
use crate::event::tags_text;
use crate::flight::{Blob, Column};
use crate::known::{About, Known, Stream};
use crate::rows::{AsRow, IdBytes, NewRow, Refusal, Rows};

/// A statement that is prepared once a connection, with its columns.
pub(crate) type Writing<'g> = (&'static str, Vec<Column<'g>>);

// What every group writes is one call: each statement more is one answer more on its way.
const GROUP_ENDS: &str = "SELECT group_ends($1, $2, $3, $4)";
pub(crate) const FORMS: &str =
    "INSERT INTO forms (name, version) SELECT * FROM unnest($1::text[], $2::bigint[]) ON CONFLICT DO NOTHING";
pub(crate) const STATE: &str = "INSERT INTO state (tenant, key, value, version, expires_at) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[]) \
     ON CONFLICT (tenant, key) DO UPDATE SET value = excluded.value, version = excluded.version, \
     expires_at = excluded.expires_at";
// A row that was kept long enough makes room; any other stands in the way, and the group is decided on again.
const REPLIES_EXPIRED: &str = "DELETE FROM replies r USING unnest($1::text[], $2::text[], $3::text[]) k (tenant, scope, key) \
     WHERE r.tenant = k.tenant AND r.scope = k.scope AND r.key = k.key AND r.recorded_at <= $4::bigint";
pub(crate) const REPLIES: &str = "INSERT INTO replies (tenant, scope, key, fingerprint, body, event_name, recorded_at) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::text[], $7::bigint[])";
const CONSUMED_EXPIRED: &str = "DELETE FROM consumed c USING unnest($1::text[], $2::bytea[]) k (subscription, message) \
     WHERE c.subscription = k.subscription AND c.message = k.message AND c.recorded_at <= $3::bigint";
const CONSUMED: &str = "INSERT INTO consumed (subscription, message, recorded_at) \
     SELECT k.subscription, k.message, $3::bigint FROM unnest($1::text[], $2::bytea[]) k (subscription, message)";
pub(crate) const LOWS: &str = "INSERT INTO progress (subscription, low) SELECT * FROM unnest($1::text[], $2::bigint[]) \
     ON CONFLICT (subscription) DO UPDATE SET low = excluded.low WHERE excluded.low > progress.low";
// What lies at or below the low mark is finished by it.
const DONE: &str = "INSERT INTO progress_done (subscription, position) \
     SELECT k.subscription, k.position FROM unnest($1::text[], $2::bigint[]) k (subscription, position) \
     JOIN progress p ON p.subscription = k.subscription WHERE k.position > p.low ON CONFLICT DO NOTHING";
const DONE_BELOW: &str = "DELETE FROM progress_done d USING unnest($1::text[], $2::bigint[]) k (subscription, low) \
     WHERE d.subscription = k.subscription AND d.position <= k.low";
pub(crate) const PARKED: &str = "INSERT INTO parked (subscription, position, attempts, key, due, history) \
     SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::text[]) \
     ON CONFLICT (subscription, position) DO UPDATE SET attempts = excluded.attempts, key = excluded.key, \
     due = excluded.due, history = excluded.history";
const PARKED_FORGOTTEN: &str = "DELETE FROM parked p USING unnest($1::text[], $2::bigint[]) k (subscription, position) \
     WHERE p.subscription = k.subscription AND p.position = k.position";
pub(crate) const PAUSES: &str = "INSERT INTO pauses (subscription, since, reason) \
     SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[]) \
     ON CONFLICT (subscription) DO UPDATE SET since = excluded.since, reason = excluded.reason";
const PAUSES_ENDED: &str = "DELETE FROM pauses WHERE subscription = ANY ($1::text[])";
const LETTERS_FORGOTTEN: &str = "DELETE FROM dead_letters WHERE id = ANY ($1::bytea[])";
pub(crate) const LETTERS: &str = "INSERT INTO dead_letters (id, subscription, position, message, at, reason, attempts, trace_id, history) \
     SELECT * FROM unnest($1::bytea[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[], $6::text[], $7::bigint[], \
     $8::bytea[], $9::text[])";
const RECEIPTS_EXPIRED: &str =
    "DELETE FROM batches WHERE id = ANY ($1::bytea[]) AND recorded_at <= $2::bigint";
pub(crate) const RECEIPTS: &str = "INSERT INTO batches (id, recorded_at, position, events, state_versions) \
     SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::integer[], $5::text[])";

/// Every statement that a group may need, to be prepared beforehand.
pub(crate) const ALL: [&str; 17] = [
    GROUP_ENDS,
    FORMS,
    STATE,
    REPLIES_EXPIRED,
    REPLIES,
    CONSUMED_EXPIRED,
    CONSUMED,
    LOWS,
    DONE,
    DONE_BELOW,
    PARKED,
    PARKED_FORGOTTEN,
    PAUSES,
    PAUSES_ENDED,
    LETTERS_FORGOTTEN,
    LETTERS,
    RECEIPTS_EXPIRED,
];

/// One column of an order.
pub(crate) fn column<'g, T>(rows: impl IntoIterator<Item = T>) -> Column<'g>
where
    Vec<T>: tokio_postgres::types::ToSql + Sync + Send + 'g,
{
    Box::new(rows.into_iter().collect::<Vec<T>>())
}

fn text(text: &str) -> String {
    codec::text(text).into_owned()
}

/// What a group has to write. `forms` are those that nobody is known to have written; what was kept until `forgotten_before`
/// makes room.
pub(crate) fn writings<'g>(
    decided: Decided<'g>,
    known: &mut Known<'g>,
    forms: &BTreeSet<(String, i64)>,
    forgotten_before: i64,
) -> Vec<Writing<'g>> {
    let mut writings = Vec::new();
    if known.expired.contains(&About::Receipts) {
        let ids = column(decided.receipts.iter().map(|receipt| IdBytes(receipt.id)));
        writings.push((RECEIPTS_EXPIRED, vec![ids, Box::new(forgotten_before)]));
    }
    if !forms.is_empty() {
        let names = column(forms.iter().map(|(name, _)| name.clone()));
        writings.push((FORMS, vec![names, column(forms.iter().map(|(_, version)| *version))]));
    }
    if !decided.state.is_empty() {
        writings.push((STATE, state(&decided, known)));
    }
    effects(&decided, known, forgotten_before, &mut writings);
    progress(&decided, &mut writings);
    waiting(&decided, &mut writings);
    let tags: Vec<TagRow<'g>> = decided.events.iter().flat_map(tags).collect();
    let streams = std::mem::take(&mut known.streams).into_iter().filter(|(_, count)| count.is_new);
    let streams: Vec<(Stream<'g>, i64)> = streams.map(|(stream, count)| (stream, count.events)).collect();
    let Decided { events, receipts, .. } = decided;
    let rows: Vec<Column<'g>> =
        vec![Box::new(Rows(events)), Box::new(Rows(tags)), Box::new(Rows(streams)), Box::new(Rows(receipts))];
    writings.push((GROUP_ENDS, rows));
    writings
}

/// The tags by which an event is found; one that is there twice is found once.
fn tags<'g>(placed: &Placed<'g>) -> impl Iterator<Item = TagRow<'g>> {
    let (event, tenant, position) = (placed.event, placed.tenant.clone(), placed.position);
    let is_first =
        move |(index, tag): &(usize, (&str, &str))| !event.tags.iter().take(*index).any(|it| it == *tag);
    let tags = event.tags.iter().enumerate().filter(is_first);
    tags.map(move |(_, tag)| TagRow { tag, tenant: tenant.clone(), position })
}

fn state<'g>(decided: &Decided<'_>, known: &Known<'_>) -> Vec<Column<'g>> {
    let each = || decided.state.iter().filter_map(|place| Some((place, known.state.get(place)?)));
    vec![
        column(each().map(|((tenant, _), _)| tenant.clone())),
        column(each().map(|((_, key), _)| key.clone())),
        column(each().map(|(_, entry)| entry.value.clone())),
        column(each().map(|(_, entry)| entry.version)),
        column(each().map(|(_, entry)| entry.expires_at)),
    ]
}

/// What makes a second time harmless.
fn effects<'g>(
    decided: &Decided<'g>,
    known: &Known<'_>,
    forgotten_before: i64,
    writings: &mut Vec<Writing<'g>>,
) {
    let replies = || {
        let each = decided.replies.iter();
        each.filter_map(|(batch, tenant)| Some((tenant, batch.reply.as_ref()?)))
    };
    if replies().next().is_some() {
        let keys = || -> Vec<Column<'g>> {
            vec![
                column(replies().map(|(tenant, _)| tenant.clone())),
                column(replies().map(|(_, reply)| text(&reply.key.scope))),
                column(replies().map(|(_, reply)| text(&reply.key.key))),
            ]
        };
        if known.expired.contains(&About::Replies) {
            let mut expired = keys();
            expired.push(Box::new(forgotten_before));
            writings.push((REPLIES_EXPIRED, expired));
        }
        let body = |reply: &StoredReply| reply.body.clone().map(Blob);
        let mut columns = keys();
        columns.extend([
            column(replies().map(|(_, reply)| Blob::from(reply.fingerprint.0.to_vec()))),
            column(replies().map(|(_, reply)| body(reply))),
            column(replies().map(|(_, reply)| reply.event_name.as_deref().map(text))),
            column(replies().map(|_| known.now)),
        ]);
        writings.push((REPLIES, columns));
    }
    if !decided.consumed.is_empty() {
        let columns = |time: i64| -> Vec<Column<'g>> {
            let each = || decided.consumed.iter();
            vec![
                column(each().map(|(subscription, _)| subscription.clone())),
                column(each().map(|(_, message)| message.clone())),
                Box::new(time),
            ]
        };
        if known.expired.contains(&About::Consumed) {
            writings.push((CONSUMED_EXPIRED, columns(forgotten_before)));
        }
        writings.push((CONSUMED, columns(known.now)));
    }
}

fn progress<'g>(decided: &Decided<'g>, writings: &mut Vec<Writing<'g>>) {
    if decided.lows.is_empty() {
        return;
    }
    let lows = || -> Vec<Column<'g>> {
        vec![column(decided.lows.keys().cloned()), column(decided.lows.values().copied())]
    };
    writings.push((LOWS, lows()));
    if !decided.done.is_empty() {
        let names = column(decided.done.iter().map(|(name, _)| name.clone()));
        writings.push((DONE, vec![names, column(decided.done.iter().map(|(_, position)| *position))]));
    }
    writings.push((DONE_BELOW, lows()));
}

/// What is parked, paused and given up.
fn waiting<'g>(decided: &Decided<'g>, writings: &mut Vec<Writing<'g>>) {
    let kept: Vec<&Parked> = decided.parked.values().copied().flatten().collect();
    if !kept.is_empty() {
        writings.push((PARKED, self::parked(&kept)));
    }
    let forgotten = || decided.parked.iter().filter(|(_, kept)| kept.is_none()).map(|(place, _)| place);
    if forgotten().next().is_some() {
        let names = column(forgotten().map(|(subscription, _)| text(subscription.as_str())));
        let positions = column(forgotten().map(|(_, position)| codec::signed(position.number())));
        writings.push((PARKED_FORGOTTEN, vec![names, positions]));
    }
    let pauses = || decided.pauses.iter().filter_map(|(subscription, pause)| Some((subscription, (*pause)?)));
    if pauses().next().is_some() {
        writings.push((
            PAUSES,
            vec![
                column(pauses().map(|(subscription, _)| text(subscription.as_str()))),
                column(pauses().map(|(_, pause)| codec::nanoseconds(pause.since))),
                column(pauses().map(|(_, pause)| text(&pause.reason))),
            ],
        ));
    }
    let ended = || decided.pauses.iter().filter(|(_, pause)| pause.is_none());
    if ended().next().is_some() {
        writings.push((PAUSES_ENDED, vec![column(ended().map(|(name, _)| text(name.as_str())))]));
    }
    if !decided.forgotten_letters.is_empty() {
        writings.push((LETTERS_FORGOTTEN, vec![column(decided.forgotten_letters.iter().cloned())]));
    }
    if !decided.letters.is_empty() {
        writings.push((LETTERS, letters(&decided.letters)));
    }
}

/// The columns of what is parked.
pub(crate) fn parked<'g>(parked: &[&Parked]) -> Vec<Column<'g>> {
    let each = || parked.iter();
    vec![
        column(each().map(|parked| text(parked.subscription.as_str()))),
        column(each().map(|parked| codec::signed(parked.position.number()))),
        column(each().map(|parked| i64::from(parked.attempts))),
        column(each().map(|parked| parked.key.as_deref().map(text))),
        column(each().map(|parked| parked.due.map(codec::nanoseconds))),
        column(each().map(|parked| codec::history(&parked.history))),
    ]
}

/// The columns of dead letters.
pub(crate) fn letters<'g>(letters: &[&DeadLetter]) -> Vec<Column<'g>> {
    let each = || letters.iter();
    let position = |letter: &&DeadLetter| match &letter.source {
        DeadLetterSource::Event(position) => Some(codec::signed(position.number())),
        DeadLetterSource::Message(_) => None,
    };
    let message = |letter: &&DeadLetter| match &letter.source {
        DeadLetterSource::Event(_) => None,
        DeadLetterSource::Message(message) => Some(Blob(message.clone())),
    };
    vec![
        column(each().map(|letter| Blob::from(codec::id(&letter.id)))),
        column(each().map(|letter| text(letter.subscription.as_str()))),
        column(each().map(position)),
        column(each().map(message)),
        column(each().map(|letter| codec::nanoseconds(letter.at))),
        column(each().map(|letter| text(&letter.reason))),
        column(each().map(|letter| i64::from(letter.attempts))),
        column(each().map(|letter| Blob::from(codec::id(&letter.trace_id)))),
        column(each().map(|letter| codec::history(&letter.history))),
    ]
}

impl AsRow for Placed<'_> {
    fn put(&self, row: &mut NewRow<'_>) -> Result<(), Refusal> {
        let Self { event, tenant, position, stream_version, recorded_at, .. } = self;
        let cause = &event.cause;
        let address = &cause.sender.address;
        row.put(position)?;
        row.text(&event.name)?;
        row.put(&i64::from(event.version))?;
        row.put(tenant)?;
        row.put(recorded_at)?;
        row.put(&IdBytes(&event.id))?;
        row.put(stream_version)?;
        row.put(&tags_text(&event.tags))?;
        row.text(address.service())?;
        row.text(address.version())?;
        row.text(address.target())?;
        row.put(&cause.sender.instance.as_ref().map(IdBytes))?;
        row.put(&cause.principal_id.as_deref().map(codec::text))?;
        row.put(&IdBytes(&cause.trace_id))?;
        row.put(&cause.correlation_id.as_ref().map(IdBytes))?;
        row.put(&cause.causation_id.as_ref().map(IdBytes))?;
        row.put(&i16::from(cause.hops))?;
        row.put(&&*event.body)?;
        row.put(&cause.trace.as_deref().map(TraceContext::to_otp))
    }
}

/// A tag of an event.
#[derive(Debug)]
pub(crate) struct TagRow<'g> {
    pub(crate) tag: (&'g str, &'g str),
    pub(crate) tenant: Cow<'g, str>,
    pub(crate) position: i64,
}

impl AsRow for TagRow<'_> {
    fn put(&self, row: &mut NewRow<'_>) -> Result<(), Refusal> {
        row.text(self.tag.0)?;
        row.text(self.tag.1)?;
        row.put(&self.tenant)?;
        row.put(&self.position)
    }
}

/// A stream with the number of its events.
impl AsRow for (Stream<'_>, i64) {
    fn put(&self, row: &mut NewRow<'_>) -> Result<(), Refusal> {
        let ((tenant, name, value), count) = self;
        row.put(tenant)?;
        row.put(name)?;
        row.put(value)?;
        row.put(count)
    }
}

impl AsRow for NewReceipt<'_> {
    fn put(&self, row: &mut NewRow<'_>) -> Result<(), Refusal> {
        row.put(&IdBytes(self.id))?;
        row.put(&self.recorded_at)?;
        row.put(&self.position)?;
        row.put(&self.events)?;
        row.put(&self.state_versions)
    }
}
