//! What the listener asks of the rest of the program, and nothing about how it is found.

use hyper::body::Bytes;

/// Where tokens come from. Called for each request: it may read files, and nothing slower.
pub(crate) trait Tokens {
    /// What to hand out now for the account of this name; without a name, for the only account there is.
    fn token(&self, account: Option<&str>) -> Lookup;

    /// The names of the accounts that have no live token now.
    fn not_ready(&self) -> Vec<String>;
}

/// What became of looking for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// The JSON to answer with.
    Token(Bytes),
    /// The account has no live token.
    NoToken,
    NoSuchAccount,
    /// No account was named, and there are several.
    WhichAccount,
}
