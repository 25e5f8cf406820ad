//! The examples below the help of each command.

/// Below the help of the program.
pub(super) const ALL: &str = "\
Examples:
  siltstone load DB records.ndjson.zst       make DB and fill it from a file
  zcat dump.gz | siltstone load DB -         the same from standard input
  siltstone get DB user:17                   print one value
  siltstone put DB user:17 'new value' --sync
  siltstone scan DB --prefix user: --limit 5
  siltstone scan DB --json > records.ndjson  can be loaded again
  siltstone dump DB | zstd > all.ndjson.zst  all keyspaces, for `load`
  siltstone checkpoint DB /backup/monday     a copy at one moment
  siltstone explain get DB user:17           where a get looks and what it finds
  siltstone completions bash > siltstone.bash
  siltstone top DB                           watch it while another process writes
  siltstone stats --db DB                    the database can be named by --db as well
  siltstone verify DB                        check every byte of every file
  siltstone repair DB SAVED                  save what can be read into a new database

Exit codes: 0 all is well, 1 damage was found, 2 the call is wrong or the system refused,
130 ended early by Ctrl-C, which says what was done (a second one quits at once).
Only one process can have a database open; verify, wal, manifest, keyspaces and top read its files
without opening it.";
pub(super) const LOAD: &str = "\
Examples:
  siltstone load DB records.ndjson.zst       make DB and fill it from a file
  zcat dump.gz | siltstone load DB -         the same from standard input
  siltstone load DB old.ndjson --skip-bad    report malformed lines and go on
  siltstone load DB big.ndjson --skip-lines 1500000
                                             go on behind what an earlier load has put";
pub(super) const DUMP: &str = "\
Examples:
  siltstone dump DB | zstd > all.ndjson.zst  all keyspaces
  siltstone load COPY all.ndjson.zst         and the same database once more
  siltstone dump DB --keyspace users > users.ndjson";
pub(super) const GET: &str = "\
Examples:
  siltstone get DB user:17                   text as it is, anything else escaped
  siltstone get DB 00ff10 --hex              key and value as hexadecimal digits
  siltstone get DB image --raw > image.png   the bytes and nothing else
  siltstone get DB user:17 --keyspace users --json";
pub(super) const PUT: &str = "\
Examples:
  siltstone put DB user:17 'new value'
  siltstone put DB user:17 - < value.bin     the value from standard input
  siltstone put DB user:17 1 --create        make the database if there is none
  siltstone put DB 00ff10 cafe --hex --sync";
pub(super) const DELETE: &str = "\
Examples:
  siltstone delete DB user:17 user:18        both or none
  siltstone delete DB 00ff10 --hex
  siltstone delete DB user:17 --keyspace users --sync";
pub(super) const SCAN: &str = "\
Examples:
  siltstone scan DB --prefix user: --limit 5
  siltstone scan DB --from a --to b --keys-only
  siltstone scan DB --reverse --limit 1      the last entry
  siltstone scan DB --prefix user: --count
  siltstone scan DB --json > records.ndjson  can be loaded again";
pub(super) const STATS: &str = "\
Examples:
  siltstone stats DB
  siltstone stats --db DB --json
  siltstone stats DB --recovery point-in-time";
pub(super) const TOP: &str = "\
Examples:
  siltstone top DB                           until q, Esc or Ctrl-C; h for help
  siltstone top DB --once --interval 5       one report, with rates over five seconds
  siltstone top DB --json > rates.ndjson     an object a second";
pub(super) const LEVELS: &str = "\
Examples:
  siltstone levels DB
  siltstone levels DB --json";
pub(super) const AMPLIFICATION: &str = "\
Examples:
  siltstone amplification DB
  siltstone amplification DB --json          by keyspace, level and cause";
pub(super) const CHECKPOINT: &str = "\
Examples:
  siltstone checkpoint DB /backup/monday
  siltstone verify /backup/monday            the copy is a database";
pub(super) const EXPLAIN: &str = "\
Examples:
  siltstone explain get DB user:17";
pub(super) const EXPLAIN_GET: &str = "\
Examples:
  siltstone explain get DB user:17
  siltstone explain get DB 00ff10 --hex --keyspace users
  siltstone explain get DB user:17 --json";
pub(super) const COMPACT: &str = "\
Examples:
  siltstone compact DB                       everything
  siltstone compact DB --from user: --to user@
  siltstone compact DB --keyspace users --json";
pub(super) const VERIFY: &str = "\
Examples:
  siltstone verify DB                        0 if all is well, 1 if something is damaged
  siltstone verify DB --json --quiet
  siltstone repair DB SAVED                  what can be done about damage";
pub(super) const REPAIR: &str = "\
Examples:
  siltstone repair DB SAVED
  siltstone repair DB SAVED --json > losses.json
  siltstone verify SAVED                     the new database";
pub(super) const WAL: &str = "\
Examples:
  siltstone wal dump DB
  siltstone wal verify DB";
pub(super) const WAL_DUMP: &str = "\
Examples:
  siltstone wal dump DB --summary            a line for each commit
  siltstone wal dump DB --from-seq 1000 --json
  siltstone wal dump DB --follow             what another process writes from now on";
pub(super) const WAL_VERIFY: &str = "\
Examples:
  siltstone wal verify DB                    segment by segment, and every damaged place
  siltstone wal verify DB --json";
pub(super) const MANIFEST: &str = "\
Examples:
  siltstone manifest dump DB";
pub(super) const MANIFEST_DUMP: &str = "\
Examples:
  siltstone manifest dump DB                 edit by edit: tables added and removed
  siltstone manifest dump DB --json | tail -n 1";
pub(super) const KEYSPACES: &str = "\
Examples:
  siltstone keyspaces DB
  siltstone keyspaces DB --json";
pub(super) const COMPLETIONS: &str = "\
Examples:
  siltstone completions bash > siltstone.bash
  siltstone completions zsh --tool lsm-bench > _lsm-bench";
pub(super) const MAN: &str = "\
Examples:
  siltstone man | man -l -
  siltstone man --dir /usr/local/share/man/man1
  siltstone man --tool sst-dump > sst-dump.1";

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::{CommandFactory, Parser};

    use super::super::{CommandLine, place_database};

    /// The words of a line as a shell takes it apart, without what is none of the command's.
    fn words(line: &str) -> Vec<OsString> {
        let line = line.split("   ").next().unwrap_or_default();
        let mut words = Vec::new();
        for (index, part) in line.split('\'').enumerate() {
            if index % 2 == 1 {
                words.push(part.into());
            } else {
                words.extend(part.split_whitespace().map(OsString::from));
            }
        }
        let end = words.iter().position(|word| word == ">" || word == "<");
        words.truncate(end.unwrap_or(words.len()));
        words
    }

    fn examples_of(command: &clap::Command, found: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        assert!(help.starts_with("Examples:\n"), "{}", command.get_name());
        let lines = help.lines().skip(1).flat_map(|line| line.split(" | "));
        let lines = lines
            .map(str::trim)
            .filter(|line| line.starts_with("siltstone "));
        found.extend(lines.map(str::to_owned));
        for inner in command.get_subcommands() {
            examples_of(inner, found);
        }
    }

    #[test]
    fn every_example_is_a_command_line() {
        let mut found = Vec::new();
        examples_of(&CommandLine::command(), &mut found);
        assert!(found.len() > 40, "{found:?}");
        for line in found {
            let parsed = CommandLine::try_parse_from(place_database(words(&line)));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
    }
}
