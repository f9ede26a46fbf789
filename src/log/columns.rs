//! How wide a text is on a terminal, and where its lines may end.

/// Returns how many columns a character takes on a terminal. Chinese characters and their punctuation take two (Unicode
/// Standard Annex 11).
pub(crate) fn columns_of(c: char) -> usize {
    let is_wide = matches!(c,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}' | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}');
    if is_wide { 2 } else { 1 }
}

/// Splits a text where a line may end. A blank stays with the word before it, and so does punctuation that cannot begin a
/// line.
pub(crate) fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut before) = (0, None);
    for (at, c) in text.char_indices() {
        let ends_line = before.is_some_and(|before: char| {
            let is_after_blank = before == ' ' && c != ' ';
            let is_at_chinese = c != ' ' && (columns_of(before) == 2 || columns_of(c) == 2);
            let is_bound =
                "，。：；、？！）》」”’…／,.:;)".contains(c) || "（《「“‘(".contains(before);
            is_after_blank || (is_at_chinese && !is_bound)
        });
        if ends_line {
            pieces.push(&text[start..at]);
            start = at;
        }
        before = Some(c);
    }
    pieces.push(&text[start..]);
    pieces
}
