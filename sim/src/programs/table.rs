//! The test-bench: how many schedules each way to search needs until the first bug, beside what was published.
//!
//! The profile ([`Search::PROFILE_RUNS`] uniform runs) is made once for each program and not counted: the published counts leave out
//! their profiling run as well. `feedback` uses no profile.
//!
//! Published means are those of Zhao, Wolff, Mathur, Roychoudhury, "Selectively uniform concurrency testing" (ASPLOS 2025), made from
//! the authors' data over 20 trials.

use super::Program;
use crate::search::{Found, Search};

/// What was published for a program: mean schedules to the first bug, and by how many of 20 trials it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// SURW.
    pub surw: (u32, u32),
    /// PCT for bugs of depth 3.
    pub pct3: (u32, u32),
    /// POS.
    pub pos: (u32, u32),
    /// Random walk.
    pub random: (u32, u32),
}

/// One program's line.
#[derive(Clone, Debug)]
pub struct Row {
    /// The program.
    pub program: Program,
    /// One entry for each search of the table.
    pub found: Vec<Found>,
}

/// Searches by programs.
#[derive(Clone, Debug)]
pub struct Table {
    /// The searches, in the order of the columns.
    pub searches: Vec<Search>,
    /// The programs.
    pub rows: Vec<Row>,
}

impl Published {
    /// Headings of [`Published::entries`].
    pub const NAMES: [&str; 4] = ["SURW", "PCT-3", "POS", "random"];

    /// The four entries in the order of [`Published::NAMES`].
    pub fn entries(self) -> [(u32, u32); 4] {
        [self.surw, self.pct3, self.pos, self.random]
    }
}

impl Program {
    /// What was published for this program in this size, where we know it.
    pub fn published(self) -> Option<Published> {
        let all = |surw, pct3, pos, random| {
            let by_all = |mean| (mean, if mean == 0 { 0 } else { 20 });
            Some(Published { surw: by_all(surw), pct3: by_all(pct3), pos: by_all(pos), random: by_all(random) })
        };
        match self {
            Program::Account => all(6, 4, 4, 18),
            Program::BluetoothDriver => all(70, 112, 36, 215),
            Program::CircularBuffer => all(3, 9, 2, 4),
            Program::Deadlock01 => all(2, 13, 4, 3),
            Program::Lazy01 => all(2, 5, 5, 21),
            Program::Reorder { setters: 2, checkers: 1 } => all(7, 185, 86, 0),
            Program::Reorder { setters: 9, checkers: 1 } => {
                all(17, 3225, 0, 0).map(|published| Published { pct3: (3225, 16), ..published })
            }
            Program::Twostage { writers: 1, readers: 1 } => all(8, 13, 15, 464),
            Program::Twostage { writers: 10, readers: 10 } => all(6, 159, 156, 0),
            _ => None,
        }
    }
}

impl Table {
    /// Measures every search on every program. `done` is called after each row.
    pub fn measure(searches: Vec<Search>, programs: &[Program], trials: u32, runs_max: u32, mut done: impl FnMut(&Row)) -> Table {
        let rows = programs.iter().map(|&program| {
            let profile = program.profile();
            let found = searches.iter().map(|search| search.measure(|policy| program.run(policy), &profile, trials, runs_max)).collect();
            let row = Row { program, found };
            done(&row);
            row
        });
        let rows = rows.collect();
        Table { searches, rows }
    }

    /// Geometric mean, over the rows with published figures, of one search's means; a trial that found nothing counts `runs_max`
    /// schedules. `None` without such rows.
    pub fn geometric_mean(&self, column: usize, runs_max: u32) -> Option<f64> {
        let rows = self.rows.iter().filter(|row| row.program.published().is_some());
        let logarithms: Vec<f64> = rows
            .map(|row| {
                let found = row.found[column];
                let (hits, misses) = (f64::from(found.found), f64::from(found.trials - found.found));
                ((found.mean * hits + f64::from(runs_max) * misses) / (hits + misses)).ln()
            })
            .collect();
        (!logarithms.is_empty()).then(|| (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp())
    }

    /// Geometric mean of the published means for SURW, the best of the published algorithms, over the rows of this table.
    pub fn published_geometric_mean(&self) -> Option<f64> {
        let logarithms: Vec<f64> =
            self.rows.iter().filter_map(|row| row.program.published()).map(|published| f64::from(published.surw.0).ln()).collect();
        (!logarithms.is_empty()).then(|| (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp())
    }

    /// One line with the geometric means.
    pub fn summary(&self, runs_max: u32) -> String {
        let means = self.searches.iter().enumerate().filter_map(|(column, search)| {
            let mean = self.geometric_mean(column, runs_max)?;
            Some(format!("{search} {mean:.2}"))
        });
        let means: Vec<String> = means.collect();
        let published = self.published_geometric_mean().map_or(String::new(), |mean| format!("; published SURW {mean:.2}"));
        format!("geometric means over the rows with published figures: {}{published}", means.join(", "))
    }

    /// The headings, aligned with [`Table::line`].
    pub fn heading(searches: &[Search]) -> String {
        let mut line = format!("{:<18}", "program");
        searches.iter().for_each(|search| line.push_str(&format!(" {:>15}", search.to_string())));
        line.push_str("  | published:");
        Published::NAMES.iter().for_each(|name| line.push_str(&format!(" {name:>12}")));
        line
    }

    /// One row as text.
    pub fn line(row: &Row) -> String {
        let mut line = format!("{:<18}", row.program.to_string());
        row.found.iter().for_each(|found| line.push_str(&format!(" {found:>15}")));
        if let Some(published) = row.program.published() {
            line.push_str("  |           ");
            for (mean, found) in published.entries() {
                let found = Found { trials: 20, found, mean: f64::from(mean) };
                line.push_str(&format!(" {found:>12}"));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicySpec;

    #[test]
    fn the_geometric_mean_counts_failed_trials_at_the_bound() {
        let row = |program, found, mean| Row { program, found: vec![Found { trials: 2, found, mean }] };
        let rows = vec![row(Program::Account, 2, 4.0), row(Program::Lazy01, 1, 2.0), row(Program::Queue, 0, 0.0)];
        let table = Table { searches: vec![Search::Policy(PolicySpec::Pos)], rows };
        let mean = table.geometric_mean(0, 16).expect("two published rows");
        assert!((mean - 6.0).abs() < 1e-9, "{mean}");
        let published = table.published_geometric_mean().expect("two published rows");
        assert!((published - 12f64.sqrt()).abs() < 1e-9);
    }
}
