//! Orders: they are taken, mailed and counted.

use std::time::Duration;

use garde::Validate;
use purista::{Command, Context, Event, HandlerError, Service, ServiceId, Tags, command, subscription};
use purista_events::projection::Projection;
use purista_events::recorded::Recorded;
use purista_postgres::read_models::projection;
use purista_postgres::tx::Tx;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const ORDERS: ServiceId = ServiceId::new("Orders", "1");
const MAIL: ServiceId = ServiceId::new("Mail", "1");

/// How long a mail takes.
const MAIL_TAKES: Duration = Duration::from_millis(30);

/// Orders a thing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Order {
    /// Which.
    #[garde(length(chars, min = 1, max = 80))]
    pub(crate) thing: String,
}

impl Command for Order {
    const SERVICE: ServiceId = ORDERS;
    const NAME: &'static str = "order";
    type Output = Taken;
}

/// An order is taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
pub(crate) struct Taken {
    /// The order.
    pub(crate) order: String,
}

/// A thing was ordered.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
pub(crate) struct Ordered {
    /// The order.
    pub(crate) order: String,
    /// What was ordered.
    pub(crate) thing: String,
}

impl Event for Ordered {
    const NAME: &'static str = "ordered";
    fn tags(&self) -> Tags {
        Tags::new().with("order", &self.order)
    }
}

/// Whoever ordered it was told.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
pub(crate) struct Mailed {
    /// The order.
    pub(crate) order: String,
}

impl Event for Mailed {
    const NAME: &'static str = "mailed";
    fn tags(&self) -> Tags {
        Tags::new().with("order", &self.order)
    }
}

async fn order(ctx: Context<()>, input: Order) -> Result<Taken, HandlerError> {
    let order = ctx.new_id().to_string();
    ctx.emit(Ordered { order: order.clone(), thing: input.thing })?;
    Ok(Taken { order })
}

/// The mail goes out before the store knows of it: it may go out twice, and what is recorded of it is recorded once.
async fn send_mail(ctx: Context<()>, event: Ordered) -> Result<(), HandlerError> {
    println!("mailed {}", event.order);
    tokio::time::sleep(MAIL_TAKES).await;
    ctx.emit(Mailed { order: event.order })?;
    Ok(())
}

/// Takes orders.
pub(crate) fn service() -> Service {
    let order = command(order).emits::<Ordered>();
    Service::builder(ORDERS, "Takes orders", ()).command(order).build()
}

/// Tells whoever ordered.
pub(crate) fn mail() -> Service {
    let mail = subscription("sendMail", send_mail).durable().from_start().in_flight(4).emits::<Mailed>();
    Service::builder(MAIL, "Tells whoever ordered", ()).subscription(mail).build()
}

/// Counts what was ordered, in the store's own tables.
pub(crate) fn counted() -> Projection<Tx> {
    projection("counted", 1)
        .set_up(|tx| tx.create_table("counted", "thing text PRIMARY KEY, count bigint NOT NULL"))
        .on(|tx, event: Recorded<Ordered>| {
            let sql = "INSERT INTO {counted} AS counted (thing, count) VALUES ($1, 1) \
                       ON CONFLICT (thing) DO UPDATE SET count = counted.count + 1";
            tx.execute(sql, &[&event.body.thing])?;
            Ok(())
        })
}
