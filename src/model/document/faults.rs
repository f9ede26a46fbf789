//! Why bytes are not a document, in both languages. Never quotes them, because they may contain a token.

use std::fmt;

use super::MAX_EXPIRES_IN;
use crate::message::notes;

/// Why bytes are not a document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidDocument(String);

notes! {
    NO_TOKEN<0> = "access_token is not a token", "access_token 不是 token";
    TOKEN_FOR_TICKET<0> = "it has an access_token and is no ticket's", "含有 access_token，不是 ticket 数据";
    NO_TICKET<0> = "ticket is not a ticket", "ticket 的内容不是 ticket";
    NO_LIFE<1> = "expires_in is not in 1…{0}", "expires_in 不在 1…{0} 之内";
    NO_TIME<0> = "created_at is not an RFC 3339 time", "created_at 不是 RFC 3339 时间";
    EMPTY<0> = "it is empty", "内容为空";
    CUT_OFF<2> = "it ends too soon (line {0}, column {1})", "内容不完整（第 {0} 行第 {1} 列）";
    OTHER_FIELDS<2> =
        "a field is missing or of the wrong type (line {0}, column {1})", "缺少字段或类型不对（第 {0} 行第 {1} 列）";
    NO_JSON<2> = "it is not JSON (line {0}, column {1})", "不是 JSON（第 {0} 行第 {1} 列）";
}

/// A fault of a field.
#[derive(Clone, Copy)]
pub(super) enum FieldFault {
    Token,
    TokenForTicket,
    Ticket,
    Life,
    Time,
}

impl FieldFault {
    pub(super) fn error(self) -> InvalidDocument {
        InvalidDocument(match self {
            FieldFault::Token => NO_TOKEN.with([]),
            FieldFault::TokenForTicket => TOKEN_FOR_TICKET.with([]),
            FieldFault::Ticket => NO_TICKET.with([]),
            FieldFault::Life => NO_LIFE.with([&MAX_EXPIRES_IN]),
            FieldFault::Time => NO_TIME.with([]),
        })
    }
}

/// Returns the kind and place of an error alone: serde_json's own message quotes what it did not expect.
pub(super) fn of_json(err: &serde_json::Error, bytes: &[u8]) -> InvalidDocument {
    let note = match err.classify() {
        _ if bytes.is_empty() => return InvalidDocument(EMPTY.with([])),
        serde_json::error::Category::Eof => &CUT_OFF,
        serde_json::error::Category::Data => &OTHER_FIELDS,
        _ => &NO_JSON,
    };
    InvalidDocument(note.with([&err.line(), &err.column()]))
}

impl fmt::Display for InvalidDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
