use garde::Validate;
use purista::{Command, Event, ServiceId};
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

const BAD: ServiceId = ServiceId::new("User Service", "1");

fn main() {
    let _ = BAD;
}
