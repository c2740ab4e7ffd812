//! What an error of the client says, in this program's words. The client's texts hold addresses, which can be signed, and
//! answers of servers, which can repeat what they were sent: of them, only the number of the status, the word of the error
//! code, and the kind of failure are told.

use std::error::Error as _;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use super::contract::Trouble;

/// The error codes, and parts of the texts, by which servers say that the clock is wrong: of S3, of Azure, of Google, and of
/// certificates.
const CLOCK: [&str; 7] = [
    "RequestTimeTooSkewed",
    "RequestExpired",
    "Request date header too old",
    "reasonable timeframe",
    "certificate: Expired",
    "certificate: NotValidYet",
    "certificate not valid yet",
];

/// Error codes that come with a status of their own, but mean that a server is busy.
const BUSY: [&str; 4] = ["SlowDown", "ServerBusy", "Throttling", "RequestTimeout"];

/// Where a machine of a provider asks for its role, which is asked last: others have nobody there.
const METADATA: [&str; 2] = ["169.254.", "metadata.google.internal"];

/// What to say of a bucket that another server answers for.
const ELSEWHERE: &str = "is in another region: set AWS_REGION, or `remote-endpoint`";

/// The longest error code that is repeated.
const MOST_CODE: usize = 40;

/// What an error means.
pub(super) fn trouble(error: &Error) -> Trouble {
    let text = whole(error);
    let (status, code) = (status(&text), code(&text));
    if CLOCK.iter().any(|words| text.contains(words)) {
        let now = crate::base::clock::now();
        return Trouble::Lasting(format!(
            "refused the time of this machine, {now}: set the clock, for example with `timedatectl set-ntp true`"
        ));
    }
    if METADATA.iter().any(|host| text.contains(host)) {
        return Trouble::Lasting(
            "needs credentials, and there are none in the environment: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
             GOOGLE_APPLICATION_CREDENTIALS, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
                .to_owned(),
        );
    }
    let said = [status.map(|status| status.to_string()), code.clone()];
    let said = said.into_iter().flatten().collect::<Vec<_>>().join(" ");
    if code.as_deref().is_some_and(|code| BUSY.iter().any(|busy| code.starts_with(busy))) {
        return Trouble::Passing(format!("answered {said}"));
    }
    match (status, code.as_deref()) {
        (Some(404), Some("NoSuchBucket" | "ContainerNotFound")) => {
            Trouble::Lasting("has no such bucket".to_owned())
        }
        (Some(404), _) => Trouble::Absent,
        (Some(401 | 403), _) => Trouble::Lasting(format!(
            "refused the credentials of this machine ({said}), or they do not allow it"
        )),
        (Some(301 | 307), _) => Trouble::Lasting(ELSEWHERE.to_owned()),
        (Some(408 | 425 | 429 | 500..), _) => Trouble::Passing(format!("answered {said}")),
        (Some(_), _) => Trouble::Lasting(format!("answered {said}")),
        (None, _) => without_status(error, &text),
    }
}

/// What it means that a client could not be made, which asks nobody.
pub(super) fn unusable() -> Trouble {
    Trouble::Lasting(
        "cannot be used with the variables of the environment: the region, the account, or a part of the credentials is \
         missing or wrong"
            .to_owned(),
    )
}

fn without_status(error: &Error, text: &str) -> Trouble {
    if let Error::NotFound { .. } = error {
        return Trouble::Absent;
    }
    let passing = |text: &str| Trouble::Passing(text.to_owned());
    match kind(error) {
        _ if text.contains("Received redirect") => Trouble::Lasting(ELSEWHERE.to_owned()),
        _ if text.contains("peer certificate") => {
            Trouble::Lasting("has a certificate that this machine does not trust".to_owned())
        }
        Some(HttpErrorKind::Connect) => passing("could not be reached"),
        Some(HttpErrorKind::Timeout) => passing("did not answer in time"),
        Some(_) => passing("cut the connection"),
        None => {
            Trouble::Lasting("could not be used: its client gives no reason that can be shown".to_owned())
        }
    }
}

/// The error and its causes.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn kind(error: &Error) -> Option<HttpErrorKind> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

/// The status of the answer.
fn status(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// The error code of the answer, if it is a plain word.
fn code(text: &str) -> Option<String> {
    let (_, after) = text.split_once("<Code>")?;
    let (code, _) = after.split_once("</Code>")?;
    let is_plain = code.len() <= MOST_CODE && code.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_plain.then(|| code.to_owned())
}
