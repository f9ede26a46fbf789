//! `#[needs(redis)]` above `#[test]` ignores a test whose tools are missing, with a reason that says what to do.
//!
//! What there is, `build.rs` finds out. A tool that was there and fails later is a failure of the test.

use proc_macro::{TokenStream, TokenTree};

/// Ignores the test unless this machine meets all of these needs. The names are those of `build.rs`.
#[proc_macro_attribute]
pub fn needs(names: TokenStream, test: TokenStream) -> TokenStream {
    let needs: Vec<_> = env!("NEEDS").split(';').filter_map(|need| need.split_once('=')).collect();
    let mut unmet = Vec::new();
    for token in names {
        let TokenTree::Ident(name) = token else { continue };
        let name = name.to_string();
        match needs.iter().find(|need| need.0 == name) {
            Some((_, "")) => {}
            Some((_, how)) => unmet.push(format!("needs {name}: {how}")),
            None => return error(&format!("no such need: {name}")),
        }
    }
    // `#[test]` above would expand first, and not see what is added here.
    if !test.to_string().contains("[test]") {
        return error("#[needs] stands above #[test]");
    }
    if unmet.is_empty() {
        return test;
    }
    let ignore: TokenStream = format!("#[ignore = {:?}]", unmet.join("; ")).parse().unwrap();
    ignore.into_iter().chain(test).collect()
}

fn error(message: &str) -> TokenStream {
    format!("compile_error!({message:?});").parse().unwrap()
}
