//! Which program listens on a port, as Linux tells it under `/proc`.

use std::fs;
use std::path::Path;

use crate::base::file;

/// No table of sockets is longer.
const LONGEST: u64 = 16 << 20;
/// `TCP_LISTEN` in the `st` column of `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// A process that listens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: u32,
    /// Its name, 15 bytes at most.
    pub(super) name: String,
}

impl Owner {
    /// Whether it is this program.
    pub(super) fn is_ours(&self) -> bool {
        self.name == env!("CARGO_PKG_NAME")
    }
}

/// Who listens on this port, on whichever address. `None`: nobody, or somebody this user may not look at.
pub(super) fn of(port: u16) -> Option<Owner> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let sockets: Vec<String> = tables
        .iter()
        .filter_map(|table| file::read(Path::new(table), LONGEST).ok())
        .flat_map(|text| listening(&String::from_utf8_lossy(&text), port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| Some((entry.path(), entry.file_name().to_str()?.parse().ok()?))).find_map(
        |(folder, pid)| {
            let mut open = fs::read_dir(folder.join("fd")).ok()?.flatten();
            let holds = open.any(|entry| {
                fs::read_link(entry.path())
                    .is_ok_and(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
            });
            let name = holds.then(|| file::read(&folder.join("comm"), 64).ok()).flatten()?;
            Some(Owner { pid, name: String::from_utf8_lossy(&name).trim().to_owned() })
        },
    )
}

/// The inodes of sockets that listen on `port`, from the text of `/proc/net/tcp` (proc_pid_net(5)).
fn listening(table: &str, port: u16) -> Vec<String> {
    let rows = table.lines().skip(1).filter_map(|row| {
        let mut columns = row.split_ascii_whitespace().skip(1);
        let (_, at) = columns.next()?.rsplit_once(':')?;
        let state = columns.nth(1)?;
        let inode = columns.nth(5)?;
        let hit = state == LISTENING && u16::from_str_radix(at, 16) == Ok(port);
        hit.then(|| inode.to_owned())
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_table_of_sockets_is_read_by_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:2254 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n   \
             1: 0100007F:2254 0100007F:D1AA 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n   \
             2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n";
        assert_eq!(listening(table, 8788), ["4711"]);
        assert_eq!(listening(table, 80), ["4713"]);
        assert!(listening(table, 81).is_empty());
        assert!(listening("", 80).is_empty());
    }

    #[test]
    fn a_listening_process_is_found_by_its_port() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(of(port).unwrap().pid, std::process::id());
    }
}
