//! What is handed out, and who may have it: one state of both, in which an account's place is the same. Changes never;
//! another one takes its place.

use std::rc::Rc;

use super::access::Access;
use super::tokens::Tokens;

pub(crate) struct Service {
    pub(crate) access: Access,
    pub(crate) tokens: Rc<dyn Tokens>,
}
