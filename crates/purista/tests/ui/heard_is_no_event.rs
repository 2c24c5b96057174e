use garde::Validate;
use purista::{Command, Context, Event, HandlerError, Service, ServiceId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const USER: ServiceId = ServiceId::new("User", "1");
struct Accounts;
struct Mailer;

#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
struct SignUp {
    #[garde(email)]
    email: String,
}
impl Command for SignUp {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "userSignUp";
    type Output = NewUser;
}

#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct NewUser {
    user_id: String,
}
impl Event for NewUser {
    const NAME: &'static str = "newUser";
}

use purista::subscription;

#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Plain {
    id: String,
}
async fn heard(_ctx: Context<Mailer>, _event: Plain) -> Result<(), HandlerError> {
    Ok(())
}

fn main() {
    let _ = Service::builder(USER, "Accounts", Mailer).subscription(subscription("heard", heard));
}
