//! One table in memory while a batch is decided: the loaded rows and their changes.

use std::collections::BTreeMap;

#[derive(Debug)]
struct Row<V> {
    value: Option<V>,
    stored: bool,
    changed: bool,
}

/// Rows in the order of their keys.
#[derive(Debug)]
pub(super) struct Table<K, V>(BTreeMap<K, Row<V>>);

impl<K: Ord, V> Table<K, V> {
    /// A table of the rows that the database holds.
    pub(super) fn new(rows: impl IntoIterator<Item = (K, V)>) -> Self {
        let stored = |value| Row { value: Some(value), stored: true, changed: false };
        Self(rows.into_iter().map(|(key, value)| (key, stored(value))).collect())
    }

    /// The row with this key, with the changes so far.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).and_then(|row| row.value.as_ref())
    }

    /// Every row, with the changes so far.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().filter_map(|(key, row)| row.value.as_ref().map(|value| (key, value)))
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        let row = self.0.entry(key).or_insert(Row { value: None, stored: false, changed: false });
        row.value = Some(value);
        row.changed = true;
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(row) = self.0.get_mut(key) {
            row.value = None;
        }
    }

    /// The rows to insert.
    pub(super) fn added(&self) -> impl Iterator<Item = &V> {
        self.0.values().filter(|row| !row.stored).filter_map(|row| row.value.as_ref())
    }

    /// The rows to replace.
    pub(super) fn replaced(&self) -> impl Iterator<Item = &V> {
        self.0.values().filter(|row| row.stored && row.changed).filter_map(|row| row.value.as_ref())
    }

    /// The keys of the rows to delete.
    pub(super) fn removed(&self) -> impl Iterator<Item = &K> {
        self.0.iter().filter(|(_, row)| row.stored && row.value.is_none()).map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_knows_what_became_of_its_rows() {
        let mut table = Table::new([(1, 'a'), (2, 'b'), (3, 'c')]);
        table.put(2, 'B');
        table.put(4, 'd');
        table.put(5, 'e');
        table.remove(&3);
        table.remove(&5);
        assert_eq!(table.added().copied().collect::<Vec<_>>(), ['d']);
        assert_eq!(table.replaced().copied().collect::<Vec<_>>(), ['B']);
        assert_eq!(table.removed().copied().collect::<Vec<_>>(), [3]);
        assert_eq!(table.get(&3), None);
        assert_eq!(table.iter().map(|(_, value)| *value).collect::<String>(), "aBd");
    }
}
