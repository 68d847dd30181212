//! Connections that could still write what is no longer so: our own from before it broke, whose last bytes may be on
//! their way, and those of earlier deployments of the job, on workers that nobody can reach. Redis shows its connections
//! by name, and ends them.

/// Who a connection belongs to: `edgeflow:<job and operator>:<incarnation>:<subtask>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// A digest of the job and the operator.
    pub family: u64,
    pub incarnation: u64,
    pub subtask: u32,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "edgeflow:{:016x}:{}:{}", self.family, self.incarnation, self.subtask)
    }
}

impl Name {
    fn parse(text: &str) -> Option<Name> {
        let mut parts = text.strip_prefix("edgeflow:")?.split(':');
        let family = u64::from_str_radix(parts.next()?, 16).ok()?;
        let (incarnation, subtask) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Name { family, incarnation, subtask })
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rivals {
    /// Ids of connections that must end before we write.
    pub past: Vec<u64>,
    /// The newest deployment that writes there, if it is newer than ours: we are of the past ourselves.
    pub newer: Option<u64>,
}

/// `list`: what CLIENT LIST says. `own`: the id of our connection.
pub fn rivals(list: &str, us: &Name, own: u64) -> Rivals {
    let mut found = Rivals::default();
    for line in list.lines() {
        let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name));
        let id = field("id=").and_then(|id| id.parse::<u64>().ok());
        let (Some(id), Some(name)) = (id, field("name=").and_then(Name::parse)) else { continue };
        if name.family != us.family || id == own {
            continue;
        }
        if name.incarnation > us.incarnation {
            found.newer = found.newer.max(Some(name.incarnation));
        } else if name.incarnation < us.incarnation || name.subtask == us.subtask {
            found.past.push(id);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(family: u64, incarnation: u64, subtask: u32) -> Name {
        Name { family, incarnation, subtask }
    }

    #[test]
    fn names_read_back() {
        let us = name(0xabc, 7, 3);
        assert_eq!(us.to_string(), "edgeflow:0000000000000abc:7:3");
        assert_eq!(Name::parse(&us.to_string()), Some(us));
        for other in ["", "edgeflow:", "edgeflow:x:1:2", "edgeflow:1:2", "edgeflow:1:2:3:4", "somebody"] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn own_broken_connections_and_all_of_earlier_deployments_are_of_the_past() {
        let us = name(1, 5, 0);
        let lines = [
            (10, name(1, 5, 0), "before it broke"),
            (11, name(1, 5, 0), "own"),
            (12, name(1, 5, 1), "another subtask"),
            (13, name(1, 4, 0), "earlier"),
            (14, name(1, 4, 2), "earlier, and there are fewer subtasks now"),
            (15, name(2, 4, 0), "another job"),
        ];
        let list: String =
            lines.iter().map(|(id, name, _)| format!("id={id} addr=1.2.3.4:5 name={name} age=1\n")).collect();
        let list = format!("{list}id=16 addr=x name= age=1\nnonsense\n");
        assert_eq!(rivals(&list, &us, 11), Rivals { past: vec![10, 13, 14], newer: None });
        assert_eq!(rivals(&list, &name(1, 3, 0), 99).newer, Some(5));
    }
}
