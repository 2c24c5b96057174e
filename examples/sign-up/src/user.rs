//! Service `User`: who has an account.

use purista::{Context, Facts, HandlerError, Service, View, command, decide_with, view};

use crate::address::canonical;
use crate::contracts::{NewUserRegistered, SignUp, USER};

/// The service, ready for a host.
pub(crate) fn user_service() -> Service {
    let sign_up = decide_with(has_account, user_sign_up).success_event();
    Service::builder(USER, "Accounts and sign-up", ()).command(sign_up).build()
}

/// The same for a host without a store. Which addresses are taken is state then, which ends with the process.
///
/// The event is emitted, not the answer marked with it: it is with the broker before anybody is told of the account.
pub(crate) fn user_service_without_store() -> Service {
    let sign_up = command(user_sign_up_unrecorded).emits::<NewUserRegistered>();
    Service::builder(USER, "Accounts and sign-up", ()).command(sign_up).build()
}

async fn user_sign_up_unrecorded(
    ctx: Context<()>,
    command: SignUp,
) -> Result<NewUserRegistered, HandlerError> {
    let address = canonical(&command.email);
    if ctx.state().get::<bool>(&address).await?.is_some() {
        return Err(taken());
    }
    ctx.state().set(&address, &true)?;
    let registered =
        NewUserRegistered { user_id: ctx.new_id().to_string(), email: command.email, name: command.name };
    ctx.emit(registered.clone())?;
    Ok(registered)
}

fn taken() -> HandlerError {
    HandlerError::conflict("this e-mail address is taken")
}

/// What the decision depends on: whether anybody has signed up with this address before. Of two at the same time, one is
/// decided again and sees the other; no table and no index of addresses is kept.
fn has_account(command: &SignUp) -> View<bool> {
    view(false)
        .tagged("email", canonical(&command.email))
        .on(|has_account, _: NewUserRegistered| *has_account = true)
}

/// The event and the answer are committed together, or not at all.
fn user_sign_up(
    command: SignUp,
    has_account: bool,
    facts: &Facts,
) -> Result<NewUserRegistered, HandlerError> {
    if has_account {
        return Err(taken());
    }
    Ok(NewUserRegistered { user_id: facts.id.to_string(), email: command.email, name: command.name })
}

#[cfg(test)]
mod tests {
    use purista::testing::{TEST_BEGINS, given};
    use purista_core::id::Id;

    use super::*;

    fn to_sign_up(email: &str) -> SignUp {
        SignUp { email: email.to_owned(), name: "Ada".to_owned() }
    }

    fn registered(user_id: &str, email: &str) -> NewUserRegistered {
        NewUserRegistered { user_id: user_id.to_owned(), email: email.to_owned(), name: "Ada".to_owned() }
    }

    #[test]
    fn a_new_address_is_registered_as_it_was_written_under_a_new_id() {
        let facts = Facts::new(TEST_BEGINS, Id::from_random(7));
        let expect = registered(&facts.id.to_string(), "Ada@Example.com");
        let asked = given().event(registered("1", "bob@example.com")).at(facts);
        asked.when_with(to_sign_up("Ada@Example.com"), has_account, user_sign_up).then(expect);
    }

    #[test]
    fn an_address_is_taken_in_any_spelling() {
        for (given_as, email) in [
            ("Ada@Example.com", "ada@example.com"),
            ("Ada@Example.com", "ADA@example.COM"),
            ("ada@bücher.example", "Ada@XN--bcher-kva.example"),
        ] {
            let asked = given().event(registered("1", given_as));
            asked.when_with(to_sign_up(email), has_account, user_sign_up).refused(409);
        }
    }
}
