//! A group of batches inside an open transaction: what it asks, what becomes of each batch, what is written.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::{Client, Error, Statement};

use crate::codec;
use crate::decision::Decided;
use crate::flight::{self, Column, Order};
use crate::known::{About, Known, Wanted};
use crate::locks::Locks;
use crate::queue::Answer;
use crate::receipts::forgotten_before;
use crate::rows::Rows;
use crate::shared::Shared;
use crate::write::{self, column};

use purista_events::batch::Batch;

/// The most statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 512;

const GROUP_LOOKS: &str =
    "SELECT base, recorded_at, receipts, counts, broken FROM group_looks($1, $2, $3, $4, $5, $6, $7)";

/// A batch with the values of its state as they will lie in their rows.
pub(crate) type Member<'g> = (&'g Batch, &'g [Option<String>]);

/// What is prepared on a connection, by its text.
pub(crate) type Statements = HashMap<String, Statement>;

/// A connection with what is prepared on it.
pub(crate) struct Session<'c> {
    pub(crate) client: &'c Client,
    pub(crate) statements: &'c mut Statements,
    pub(crate) schema: &'c str,
}

/// What a group came to, before it is written.
pub(crate) struct Outcome<'g> {
    pub(crate) answers: Vec<Answer>,
    /// What has to be written for the answers to be true; nothing, when none of the batches was taken.
    pub(crate) orders: Vec<Order<'g>>,
    /// The last position then.
    pub(crate) head: i64,
    /// The forms that will be in the table then.
    pub(crate) forms: BTreeSet<(String, i64)>,
}

/// Whether the transaction is open already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transaction {
    Begins,
    IsOpen,
}

impl Session<'_> {
    /// Prepares what every group needs, all at once.
    pub(crate) async fn prepare_all(&mut self) -> Result<(), Error> {
        let about = [
            About::Consumed,
            About::Replies,
            About::Lows,
            About::Done,
            About::Letters,
            About::State,
            About::Log,
        ];
        let texts = about.into_iter().map(About::sql).chain(write::ALL).chain([GROUP_LOOKS]);
        let texts: Vec<&'static str> = texts.collect();
        let prepared =
            futures_util::future::try_join_all(texts.iter().map(|sql| self.client.prepare(sql))).await?;
        self.statements.extend(texts.into_iter().map(str::to_owned).zip(prepared));
        Ok(())
    }

    /// A statement on its way, prepared when it is said for the first time.
    pub(crate) async fn order<'g>(
        &mut self,
        sql: &str,
        columns: Vec<Column<'g>>,
    ) -> Result<Order<'g>, Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(Order { statement: statement.clone(), columns });
        }
        let statement = self.client.prepare(sql).await?;
        if self.statements.len() < STATEMENTS_MAX {
            self.statements.insert(sql.to_owned(), statement.clone());
        }
        Ok(Order { statement, columns })
    }

    /// Takes the locks, a number and a time, and decides on each of them.
    pub(crate) async fn decide<'g>(
        &mut self,
        shared: &Shared,
        group: &[Member<'g>],
        transaction: Transaction,
    ) -> Result<Outcome<'g>, Error> {
        let mut known = self.look(shared, group, transaction).await?;
        shared.time.at_least(known.now);
        let mut decided = Decided::default();
        let mut answers = Vec::with_capacity(group.len());
        for (number, (batch, state_texts)) in group.iter().enumerate() {
            answers.push(decided.batch(&mut known, number, batch, state_texts));
        }
        let (mut orders, mut forms) = (Vec::new(), BTreeSet::new());
        if !decided.is_empty() {
            let each = decided.events.iter().map(|placed| placed.event);
            let named: BTreeSet<_> =
                each.map(|event| (event.name.as_str(), i64::from(event.version))).collect();
            let named = named.into_iter().map(|(name, version)| (codec::text(name).into_owned(), version));
            forms = shared.forms.unknown(named.collect());
            let before = forgotten_before(known.now);
            for (sql, columns) in write::writings(decided, &mut known, &forms, before) {
                orders.push(self.order(sql, columns).await?);
            }
        }
        Ok(Outcome { answers, orders, head: known.head, forms })
    }

    /// Begins to write, and reads what the group asks.
    async fn look<'g>(
        &mut self,
        shared: &Shared,
        group: &[Member<'g>],
        transaction: Transaction,
    ) -> Result<Known<'g>, Error> {
        let (mut wanted, mut locks) = (Wanted::default(), Locks::new(self.schema));
        for (number, (batch, _)) in group.iter().enumerate() {
            wanted.add(number, batch);
            locks.add(batch);
        }
        let (keys, are_exclusive) = locks.columns();
        let (clock, guard) = (shared.time.instead_of_the_server(), Locks::guard(self.schema));
        let asked = wanted.streams.iter().map(|stream| (stream.clone(), 0)).collect();
        let columns: Vec<Column<'_>> = vec![
            Box::new(keys),
            Box::new(are_exclusive),
            Box::new(clock),
            Box::new(guard),
            Box::new(&wanted.ids),
            Box::new(Rows(asked)),
            Box::new(&wanted.by_tag),
        ];
        let mut orders = vec![self.order(GROUP_LOOKS, columns).await?];
        let mut about = Vec::new();
        for (asked, columns) in questions(&wanted) {
            orders.push(self.order(asked.sql(), columns).await?);
            about.push(asked);
        }
        for (number, select) in &wanted.searches {
            orders.push(self.order(&select.sql, select.columns()).await?);
            about.push(About::Condition(*number));
        }
        let answered = match transaction {
            Transaction::Begins => flight::begin(self.client, &orders).await?,
            Transaction::IsOpen => flight::run(self.client, &orders).await?,
        };
        let mut known = Known::default();
        drop(orders);
        let mut answered = answered.iter();
        if let Some(row) = answered.next().and_then(|rows| rows.first()) {
            known.learn_first(row, wanted.streams, &wanted.by_tag.0)?;
        }
        for (about, rows) in about.into_iter().zip(answered) {
            known.learn(about, rows)?;
        }
        Ok(known)
    }
}

/// What is asked beside conditions. The log itself comes last: what it has forgotten of a key is known then, where the key's row
/// is gone.
fn questions(wanted: &Wanted<'_>) -> Vec<(About, Vec<Column<'static>>)> {
    let threes = |keys: &std::collections::BTreeSet<(String, String, String)>| -> Vec<Column<'static>> {
        vec![
            column(keys.iter().map(|(one, ..)| one.clone())),
            column(keys.iter().map(|(_, two, _)| two.clone())),
            column(keys.iter().map(|(.., three)| three.clone())),
        ]
    };
    let mut questions = Vec::new();
    if !wanted.consumed.is_empty() {
        let subscriptions = column(wanted.consumed.iter().map(|(subscription, _)| subscription.clone()));
        let messages = column(wanted.consumed.iter().map(|(_, message)| message.clone()));
        questions.push((About::Consumed, vec![subscriptions, messages]));
    }
    if !wanted.replies.is_empty() {
        questions.push((About::Replies, threes(&wanted.replies)));
    }
    if !wanted.lows.is_empty() {
        questions.push((About::Lows, vec![column(wanted.lows.iter().cloned())]));
    }
    if !wanted.done.is_empty() {
        let subscriptions = column(wanted.done.iter().map(|(subscription, _)| subscription.clone()));
        let positions = column(wanted.done.iter().map(|(_, position)| *position));
        questions.push((About::Done, vec![subscriptions, positions]));
    }
    if !wanted.letters.is_empty() {
        questions.push((About::Letters, vec![column(wanted.letters.iter().cloned())]));
    }
    if !wanted.state.is_empty() {
        let tenants = column(wanted.state.iter().map(|(tenant, _)| tenant.clone()));
        let keys = column(wanted.state.iter().map(|(_, key)| key.clone()));
        questions.push((About::State, vec![tenants, keys]));
    }
    if wanted.log {
        questions.push((About::Log, Vec::new()));
    }
    questions
}
