//! Events side by side: a column per actor, time downwards, the jump across all of them.

use super::cause::{Link, Role};
use super::history::History;
use super::words;

/// Most columns a line has room for.
const COLUMNS_MAX: usize = 3;
/// The side of what belongs to no kernel.
const HARDWARE: &str = "hardware";
/// Characters of the column of steps.
const STEP_CHARS: usize = 9;

/// Whose events a column shows.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Column {
    side: String,
    name: String,
}

/// Draws the links in `width` characters, with a starred verdict below.
pub fn draw(history: &History<'_>, links: &[Link], verdict: &str, width: usize) -> Vec<String> {
    let events: Vec<&Link> = links.iter().filter(|link| link.role != Role::Jump).collect();
    let last_era = history.events().last().map_or(0, |event| event.era);
    let exact: Vec<Column> = events.iter().map(|link| column(history, link.at, last_era)).collect();
    let columns = layout(&exact);
    let cell_chars = (width.saturating_sub(STEP_CHARS) / columns.len().max(1)).saturating_sub(2).max(12);
    let merged = exact.iter().any(|column| !columns.contains(column));

    let mut lines = vec![row("", &columns.iter().map(|column| column.side.clone()).collect::<Vec<_>>(), cell_chars)];
    lines.push(row("step", &columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>(), cell_chars));
    lines.push(row(
        "",
        &columns.iter().map(|column| "-".repeat(column.side.len().max(column.name.len()).min(cell_chars))).collect::<Vec<_>>(),
        cell_chars,
    ));
    let mut position = 0;
    for link in links {
        if link.role == Role::Jump {
            lines.push(centred("--- kexec ---", width));
            continue;
        }
        let own = &exact[position];
        position += 1;
        let index = columns.iter().position(|column| column == own).or_else(|| columns.iter().position(|column| column.side == own.side));
        let mut text = words::brief(history, link.at);
        let of_unit = own.side == HARDWARE && own.name.starts_with("iommu");
        if merged && !of_unit && columns.iter().all(|column| column != own) {
            text = format!("{}: {text}", own.name);
        }
        let step = history.event(link.at).step.to_string();
        for (nr, part) in wrap(&text, cell_chars).into_iter().enumerate() {
            let mut cells = vec![String::new(); columns.len()];
            cells[index.unwrap_or(0)] = if nr == 0 { part } else { format!(" {part}") };
            lines.push(row(if nr == 0 { &step } else { "" }, &cells, cell_chars));
        }
    }
    lines.push(centred(&format!("*** {verdict} ***"), width));
    lines
}

/// Which kernel an era is, seen from the last one.
pub fn side(era: u8, last: u8) -> String {
    match (era, last) {
        (0, 0) => "outgoing".to_owned(),
        (era, last) if era == last => "incoming".to_owned(),
        (era, last) if era + 1 == last => "outgoing".to_owned(),
        (era, _) => format!("kernel {era}"),
    }
}

fn column(history: &History<'_>, at: usize, last_era: u8) -> Column {
    let event = history.event(at);
    let name = history.name(event.actor);
    if history.is_hardware(event.actor) {
        Column { side: HARDWARE.to_owned(), name }
    } else {
        Column { side: side(event.era, last_era), name }
    }
}

/// One column an actor while there is room; else one a side. What hardware does is one column always: it is the other party.
fn layout(exact: &[Column]) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for column in exact {
        let same = |known: &&mut Column| if column.side == HARDWARE { known.side == HARDWARE } else { **known == *column };
        match columns.iter_mut().find(same) {
            // The device is named: what its unit does says so itself.
            Some(known) if known.name.starts_with("iommu") => known.name.clone_from(&column.name),
            Some(_) => {}
            None => columns.push(column.clone()),
        }
    }
    if columns.len() > COLUMNS_MAX {
        let mut sides: Vec<Column> = Vec::new();
        for column in columns {
            match sides.iter_mut().find(|side| side.side == column.side) {
                Some(side) => side.name = String::new(),
                None => sides.push(column),
            }
        }
        columns = sides;
    }
    let rank = |column: &Column| match column.side.as_str() {
        "outgoing" => 1,
        "hardware" => 2,
        "incoming" => 3,
        _ => 0,
    };
    columns.sort_by_key(rank);
    columns
}

fn row(step: &str, cells: &[String], cell_chars: usize) -> String {
    let mut line = format!("{step:>7}  ");
    for cell in cells {
        let cut: String = cell.chars().take(cell_chars).collect();
        line.push_str(&format!("{cut:<cell_chars$}  "));
    }
    line.trim_end().to_owned()
}

fn centred(text: &str, width: usize) -> String {
    format!("{text:^width$}").trim_end().to_owned()
}

/// Breaks a text into lines of at most `chars` characters, later ones one shorter, at spaces where there are any.
pub fn wrap(text: &str, chars: usize) -> Vec<String> {
    let chars = chars.max(4);
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let room = if lines.len() == 1 { chars } else { chars - 1 };
            let line = lines.last_mut().expect("never empty");
            let used = line.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + word.len() <= room {
                if gap == 1 {
                    line.push(' ');
                }
                line.extend(word);
                break;
            }
            if used == 0 {
                let rest = word.split_off(room);
                line.extend(word);
                word = rest;
            }
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_keeps_every_character_and_the_width() {
        assert_eq!(wrap("clear IOMMU page table+0x8", 12), ["clear IOMMU", "page", "table+0x8"]);
        assert_eq!(wrap("abcdefghijkl", 5), ["abcde", "fghi", "jkl"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn sides_are_named_from_the_end_of_the_run() {
        assert_eq!(
            [side(0, 0), side(0, 1), side(1, 1), side(0, 2), side(1, 2)],
            ["outgoing", "outgoing", "incoming", "kernel 0", "outgoing"]
        );
    }
}
