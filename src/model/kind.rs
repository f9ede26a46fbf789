//! The kinds of documents: the account's token and its tickets by type. Knows which ticket types exist on which API,
//! and nothing of how a document is stored.

use std::fmt;

use crate::message::{listed, messages};
use crate::model::api::Api;

messages! {
    NO_SUCH_TICKET<1> {
        "Name one of {0}.", "there is no such ticket on this api";
        "请从 {0} 中选择。", "该 api 没有这种 ticket";
    }
}

/// What a document holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DocumentKind {
    Token,
    Ticket(TicketType),
}

/// What a ticket is for: `jsapi`, `wx_card`, … Never a path, because it becomes part of a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TicketType(String);

/// How messages name a document: by its account, and a ticket by its type as well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DocumentName<'a> {
    pub(crate) account: &'a str,
    /// `None` for the token.
    pub(crate) ticket: Option<&'a TicketType>,
}

impl<'a> DocumentName<'a> {
    /// Returns the name of an account's token.
    pub(crate) fn of_token(account: &'a str) -> DocumentName<'a> {
        DocumentName { account, ticket: None }
    }
}

impl fmt::Display for DocumentName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.account)?;
        match self.ticket {
            Some(kind) => write!(f, ": {kind} ticket"),
            None => Ok(()),
        }
    }
}

impl TicketType {
    /// Accepts 1 to 32 lowercase letters, digits and underscores; `None` for anything else.
    pub(crate) fn parse(name: &str) -> Option<TicketType> {
        let is_valid =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_type = (1..=32).contains(&name.len()) && name.bytes().all(is_valid);
        is_type.then(|| TicketType(name.to_owned()))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Returns the names of the types that accounts on `api` have.
    pub(crate) fn names_on(api: Api) -> &'static [&'static str] {
        match api {
            Api::Stable | Api::Classic => &["jsapi", "wx_card"],
            Api::Work => &["jsapi", "agent_config"],
        }
    }

    /// Returns the type of this name if accounts on `api` have such tickets. The error lists those they have.
    pub(crate) fn on(api: Api, name: &str) -> Result<TicketType, String> {
        let types = TicketType::names_on(api);
        let found = types.contains(&name).then(|| TicketType(name.to_owned()));
        found.ok_or_else(|| NO_SUCH_TICKET.first([&listed(types, types.len())]))
    }
}

impl fmt::Display for TicketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_type_is_a_word_and_never_a_path() {
        for name in ["jsapi", "wx_card", "agent_config", "2", &"x".repeat(32)] {
            assert_eq!(TicketType::parse(name).unwrap().to_string(), name);
        }
        for wrong in ["", "JSAPI", "a.b", "../x", "a/b", "a b", "jsapi\0", "é", &"x".repeat(33)] {
            assert_eq!(TicketType::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn messages_name_the_account_and_the_type_of_a_ticket() {
        let kind = TicketType::parse("wx_card").unwrap();
        assert_eq!(kind.name(), "wx_card");
        assert_eq!(DocumentName::of_token("shop").to_string(), "shop");
        let name = DocumentName { account: "shop", ticket: Some(&kind) };
        assert_eq!(name.to_string(), "shop: wx_card ticket");
    }
}
