//! `checkup token`: prints a token for a caller, signed with the key of a data directory.

use runtime::identity::{Claims, Hospitals, IdentityError, Role};

use crate::cli::TokenArgs;
use crate::exit::{Exit, Failure, chain};
use crate::identity;
use crate::terminal;

/// Prints the token and nothing else.
///
/// # Errors
/// Fails if no such caller can exist, or the key cannot be used.
pub fn run(args: TokenArgs) -> Result<Exit, Failure> {
    let claims = claims(&args)?;
    let signer = identity::signer(&args.data_dir)?;
    let token = signer.sign(&claims).map_err(|error| match error {
        IdentityError::TooLong { .. } => Failure::usage(error.to_string()),
        _ => Failure::failed(chain(&error)),
    })?;
    terminal::print(&format!("{token}\n"))?;
    Ok(Exit::Ok)
}

fn claims(args: &TokenArgs) -> Result<Claims, Failure> {
    let hospitals = match (args.role, &args.hospitals) {
        (Role::Admin, Some(listed)) => Some(listed.clone()),
        (Role::Admin, None) => Some(Hospitals::One("*".to_owned())),
        (_, None) => None,
        (role, Some(_)) => return Err(Failure::usage(format!("--hospitals is for admins; the role {role} has none"))),
    };
    if args.ttl.as_secs() == 0 {
        return Err(Failure::usage("--ttl must be a second at least: tokens end at whole seconds"));
    }
    let claims = Claims::new(args.role, &args.subject, hospitals, args.ttl);
    // The check that services make, so that a token which nobody would accept is not made.
    claims.caller().map_err(|why| Failure::usage(format!("nobody would accept this token: {why}")))?;
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    fn args(role: Role, subject: &str, hospitals: Option<&str>) -> TokenArgs {
        let hospitals = hospitals.map(|listed| listed.parse().unwrap());
        let (data_dir, ttl) = (PathBuf::new(), Duration::from_secs(60));
        TokenArgs { data_dir, role, subject: subject.to_owned(), hospitals, ttl }
    }

    #[test]
    fn only_callers_that_can_exist_get_a_token() {
        assert!(claims(&args(Role::Customer, "kim", None)).is_ok());
        assert_eq!(claims(&args(Role::Admin, "lee", None)).unwrap().hospitals, Some(Hospitals::One("*".to_owned())));
        assert!(claims(&args(Role::Admin, "lee", Some("seoul-clinic,busan-clinic"))).is_ok());
        for wrong in [
            args(Role::Customer, "customers/kim", None),
            args(Role::Customer, "", None),
            args(Role::Customer, "kim", Some("seoul-clinic")),
            args(Role::Auditor, "kang", Some("*")),
            TokenArgs { ttl: Duration::from_millis(999), ..args(Role::Auditor, "kang", None) },
        ] {
            assert_eq!(claims(&wrong).unwrap_err().exit, crate::exit::Exit::Usage, "{wrong:?}");
        }
    }
}
