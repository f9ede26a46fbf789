//! What a request's body says. It is small, it is a JSON object, and no answer quotes it: there is a token or a key in it.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::response::Rejection;
use crate::model::document;
use crate::model::secret::Secret;
use crate::server::limits::MAX_BODY;

/// A body, as it arrives.
pub(crate) type RequestBody<'a> = dyn Body<Data = Bytes, Error = hyper::Error> + Unpin + 'a;

/// Reads a whole body, as long as it is small.
pub(crate) async fn read(body: &mut RequestBody<'_>) -> Result<Bytes, Rejection> {
    let whole = Limited::new(body, MAX_BODY as usize).collect().await;
    let whole = whole.map_err(|err| {
        if err.is::<LengthLimitError>() {
            Rejection::BodyTooLarge
        } else {
            Rejection::BadRequest("the body broke off; send it whole")
        }
    })?;
    Ok(whole.to_bytes())
}

/// The object that a body is, if it is one. Why not, serde_json says in words that quote it.
pub(crate) fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    // A list of the fields' values would do, too.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(body).ok()).flatten()
}

/// What a client says of a token.
#[derive(Deserialize)]
struct Report {
    rejected: Zeroizing<String>,
}

/// The token that a client says WeChat rejected.
pub(crate) fn rejected(body: &[u8]) -> Result<Secret, Rejection> {
    let report: Report = object(body).ok_or(Rejection::BadRequest(
        r#"expected {"rejected":"TOKEN"}, the token that WeChat rejected"#,
    ))?;
    if !document::is_token(&report.rejected) {
        return Err(Rejection::BadRequest(
            "what was rejected is not a token; send the access_token as it was handed out",
        ));
    }
    Ok(Secret::new(report.rejected.to_string()))
}
