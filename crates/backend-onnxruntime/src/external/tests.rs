use super::{Marks, varint};

#[test]
fn damaged_bytes_end_the_walk() {
    assert!(Marks::of(&[0x3a, 0x05, 0x01]).is_none());
    assert!(Marks::of(&[0xff]).is_none());
    assert!(Marks::of(&[0x0b]).is_none());
    assert!(Marks::of(&[]).is_some_and(|marks| marks.initializers == 0 && marks.misplaced.is_none()));
}

#[test]
fn numbers_of_any_spelling_are_read() {
    assert_eq!(varint(&mut &[0x96, 0x01][..]), Some(150));
    assert_eq!(varint(&mut &[0x88, 0x80, 0x00][..]), Some(8));
    assert_eq!(varint(&mut &[0x80; 12][..]), None);
}

#[test]
fn marks_are_found_in_graphs_inside_attributes() {
    let tensor = [0x70, 0x01];
    let wrap = |tag: &[u8], body: &[u8]| [tag, &[u8::try_from(body.len()).unwrap()], body].concat();
    let graph = wrap(&[0x2a], &tensor); // initializer
    let outermost = Marks::of(&wrap(&[0x3a], &graph)).unwrap();
    assert_eq!((outermost.initializers, outermost.misplaced.is_none()), (1, true));
    // node { attribute { g { initializer } } }
    let node = wrap(&[0x0a], &wrap(&[0x2a], &wrap(&[0x32], &graph)));
    let inner = Marks::of(&wrap(&[0x3a], &node)).unwrap();
    assert_eq!((inner.initializers, inner.misplaced.is_some()), (0, true));
}
