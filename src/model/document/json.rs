//! The JSON forms of documents, and how they are parsed.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::faults::{self, InvalidDocument};

/// The JSON form of a token's document. Unknown fields are ignored.
#[derive(Deserialize, Serialize)]
pub(super) struct TokenDocumentJson<'a> {
    pub(super) appid: String,
    pub(super) access_token: Cow<'a, str>,
    pub(super) expires_in: u64,
    #[serde(borrow)]
    pub(super) created_at: Cow<'a, str>,
    #[serde(default, deserialize_with = "ours_or_none", skip_serializing_if = "Option::is_none")]
    pub(super) boot_id: Option<String>,
    #[serde(default, deserialize_with = "ours_or_none", skip_serializing_if = "Option::is_none")]
    pub(super) boottime: Option<f64>,
    #[serde(default, deserialize_with = "ours_or_none", skip_serializing_if = "Option::is_none")]
    pub(super) put_back: Option<bool>,
}

/// The JSON form of a ticket's document.
#[derive(Deserialize, Serialize)]
pub(super) struct TicketDocumentJson<'a> {
    pub(super) appid: String,
    pub(super) ticket: Cow<'a, str>,
    /// Its presence makes the document a token's, whatever else is in it.
    #[serde(default, skip_serializing)]
    pub(super) access_token: Option<IgnoredAny>,
    pub(super) expires_in: u64,
    #[serde(borrow)]
    pub(super) created_at: Cow<'a, str>,
    #[serde(default, deserialize_with = "ours_or_none", skip_serializing_if = "Option::is_none")]
    pub(super) boot_id: Option<String>,
    #[serde(default, deserialize_with = "ours_or_none", skip_serializing_if = "Option::is_none")]
    pub(super) boottime: Option<f64>,
    #[serde(default, deserialize_with = "ours_or_none", skip_serializing_if = "Option::is_none")]
    pub(super) put_back: Option<bool>,
}

/// Reads a field that other programs may use for something else: then it is as if it were missing.
fn ours_or_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    field: D,
) -> Result<Option<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Field<T> {
        Ours(T),
        Other(IgnoredAny),
    }
    Ok(match Field::deserialize(field)? {
        Field::Ours(value) => Some(value),
        Field::Other(_) => None,
    })
}

/// Reads a document's JSON. The error quotes none of it.
pub(super) fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, InvalidDocument> {
    serde_json::from_slice(bytes).map_err(|err| faults::of_json(&err, bytes))
}
