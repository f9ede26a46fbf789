//! A table that fits the terminal: columns that matter least are left out until it does.

use super::RESET;
use super::terminal::{columns, cut, cut_at_start, padded};

/// What stands between two columns.
const GAP: usize = 2;

/// A column.
pub(in crate::commands) struct Column {
    pub(in crate::commands) heading: String,
    /// How soon it is left out if the table is too wide: the lowest first; `None` stays.
    pub(in crate::commands) leave_out: Option<u8>,
}

/// A cell, and the colour of its text.
#[derive(Default)]
pub(in crate::commands) struct Cell {
    text: String,
    colour: Option<&'static str>,
}

impl Cell {
    pub(in crate::commands) fn new(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), colour: None }
    }

    pub(in crate::commands) fn coloured(self, colour: Option<&'static str>) -> Cell {
        Cell { colour, ..self }
    }
}

/// A row.
pub(in crate::commands) struct Row {
    /// The cells of the first columns.
    pub(in crate::commands) cells: Vec<Cell>,
    /// A path that takes the place of the others.
    pub(in crate::commands) path: Option<String>,
}

/// Returns the table as lines of up to `width` columns. A column that no row has is left out.
pub(in crate::commands) fn table(
    mut columns_of_it: Vec<Column>,
    mut rows: Vec<Row>,
    width: usize,
) -> String {
    let used = rows.iter().map(|row| row.cells.len()).max();
    columns_of_it.truncate(used.unwrap_or(columns_of_it.len()));
    let mut widths = widths(&columns_of_it, &rows);
    while total(&widths) > width {
        let order = |(index, column): (usize, &Column)| Some((column.leave_out?, index));
        let Some((_, least)) = columns_of_it.iter().enumerate().filter_map(order).min() else {
            break;
        };
        columns_of_it.remove(least);
        widths.remove(least);
        for row in rows.iter_mut().filter(|row| row.cells.len() > least) {
            row.cells.remove(least);
        }
    }
    // What is still too wide is taken from the names.
    let excess = total(&widths).saturating_sub(width);
    if let Some(first) = widths.first_mut() {
        *first = first.saturating_sub(excess).max(1);
    }
    let headings = columns_of_it.iter().map(|it| Cell::new(it.heading.as_str())).collect();
    let headings = Row { cells: headings, path: None };
    [headings].iter().chain(&rows).map(|row| line(row, &widths, width)).collect()
}

fn widths(all: &[Column], rows: &[Row]) -> Vec<usize> {
    let cell = |row: &Row, index: usize| row.cells.get(index).map_or(0, |it| columns(&it.text));
    let widest = |(index, column): (usize, &Column)| {
        let cells = rows.iter().map(|row| cell(row, index)).max();
        columns(&column.heading).max(cells.unwrap_or_default())
    };
    all.iter().enumerate().map(widest).collect()
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

fn line(row: &Row, widths: &[usize], width: usize) -> String {
    let (mut line, mut used) = (String::new(), 0);
    for (Cell { text, colour }, cell_width) in row.cells.iter().zip(widths) {
        let text = cut(text, *cell_width);
        let padding = &padded(&text, cell_width + GAP)[text.len()..];
        used += cell_width + GAP;
        match colour {
            Some(colour) => line += &format!("{colour}{text}{RESET}{padding}"),
            None => line += &format!("{text}{padding}"),
        }
    }
    if let Some(path) = &row.path {
        line += &cut_at_start(path, width.saturating_sub(used));
    }
    line.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns_of(names: &[(&str, Option<u8>)]) -> Vec<Column> {
        let column = |(heading, leave_out): &(&str, Option<u8>)| Column {
            heading: (*heading).to_owned(),
            leave_out: *leave_out,
        };
        names.iter().map(column).collect()
    }

    fn row(cells: &[&str], path: Option<&str>) -> Row {
        let cells = cells.iter().map(|text| Cell::new(*text)).collect();
        Row { cells, path: path.map(str::to_owned) }
    }

    #[test]
    fn columns_are_left_out_until_the_table_fits() {
        let make = |width| {
            let columns =
                columns_of(&[("ACCOUNT", None), ("BAR", Some(1)), ("LEFT", None), ("ID", Some(0))]);
            let rows = vec![
                row(&["shop", "███", "1h", "wx01"], None),
                row(&["crm", "█", "2m", "wx02"], None),
            ];
            table(columns, rows, width)
        };
        assert_eq!(
            make(80),
            "ACCOUNT  BAR  LEFT  ID\nshop     ███  1h    wx01\ncrm      █    2m    wx02\n"
        );
        assert_eq!(make(23), "ACCOUNT  BAR  LEFT\nshop     ███  1h\ncrm      █    2m\n");
        assert_eq!(make(17), "ACCOUNT  LEFT\nshop     1h\ncrm      2m\n");
        assert_eq!(make(10), "ACC…  LEFT\nshop  1h\ncrm   2m\n");
    }

    #[test]
    fn a_path_takes_the_place_of_the_other_cells_and_is_cut_at_its_start() {
        let columns = columns_of(&[("ACCOUNT", None), ("STATE", None), ("LEFT", None)]);
        let rows = vec![row(&["shop", "missing"], Some("/var/lib/wxtoken/shop.json"))];
        assert_eq!(table(columns, rows, 30), "ACCOUNT  STATE\nshop     missing  …n/shop.json\n");
    }

    #[test]
    fn chinese_is_in_columns_too() {
        let columns = columns_of(&[("账号", None), ("状态", None)]);
        let rows = vec![row(&["shop", "有效"], None), row(&["crm_2", "已过期"], None)];
        assert_eq!(table(columns, rows, 80), "账号   状态\nshop   有效\ncrm_2  已过期\n");
    }
}
