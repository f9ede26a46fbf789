//! Request bodies: small JSON objects. No response quotes one, as it holds a token or a key.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::rejection::{Rejection, text};
use crate::model::document;
use crate::model::secret::Secret;
use crate::server::limits::MAX_BODY;

/// A body that may still be arriving.
pub(crate) type RequestBody<'a> = dyn Body<Data = Bytes, Error = hyper::Error> + Unpin + 'a;

/// Reads a body to its end. Fails if it is too large or broken off.
pub(super) async fn read(body: &mut RequestBody<'_>) -> Result<Bytes, Rejection> {
    let whole = Limited::new(body, MAX_BODY as usize).collect().await;
    let whole = whole.map_err(|err| {
        if err.is::<LengthLimitError>() {
            Rejection::BodyTooLarge
        } else {
            Rejection::BadRequest(text::BODY_BROKE_OFF)
        }
    })?;
    Ok(whole.to_bytes())
}

/// Parses a body that is a JSON object; `None` if it is not one. serde_json's errors are dropped, as they quote it.
pub(super) fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    // serde also takes a list of the fields' values.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(body).ok()).flatten()
}

/// A report about a token.
#[derive(Deserialize)]
struct RejectionReport {
    rejected: Zeroizing<String>,
}

/// Parses the report of a token that WeChat rejected.
pub(super) fn rejected(body: &[u8]) -> Result<Secret, Rejection> {
    let report: RejectionReport = object(body).ok_or(Rejection::BadRequest(text::NO_REPORT))?;
    if !document::is_bare_token(&report.rejected) {
        return Err(Rejection::BadRequest(text::NO_TOKEN_REPORTED));
    }
    Ok(Secret::new(report.rejected.to_string()))
}
