//! A page of metrics cut to the families that its reader names, `/metrics?name[]=a&name[]=b`.

use super::form;

/// `page` with only the families that `query` names; all of it where it names none.
pub(crate) fn only_named(page: String, query: Option<&str>) -> String {
    let Some(query) = query else { return page };
    let Ok(pairs) = form::query(Some(query)) else { return page };
    let names: Vec<_> = pairs.into_iter().filter(|(key, _)| key == "name[]").map(|(_, name)| name).collect();
    if names.is_empty() {
        return page;
    }
    let is_named = |line: &str| {
        let rest = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
        let series = rest.split([' ', '{']).next().unwrap_or_default();
        // The series of a histogram or a summary are called after their family.
        let family = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| series.strip_suffix(end));
        names.iter().any(|name| *name == series || Some(name.as_str()) == family)
    };
    page.split_inclusive('\n').filter(|line| is_named(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::only_named;

    const PAGE: &str = "# HELP a things\n# TYPE a counter\na{x=\"1 2\"} 1\n\n# TYPE b histogram\nb_bucket{le=\"1\"} 1\n\
        b_sum 1\nb_count 1\n# TYPE b_more gauge\nb_more 2\n";

    #[test]
    fn families_are_kept_whole_and_others_left_out() {
        let named = |query| only_named(PAGE.to_owned(), query);
        assert_eq!(named(None), PAGE);
        assert_eq!(named(Some("x=y")), PAGE);
        assert_eq!(named(Some("name[]=a")), "# HELP a things\n# TYPE a counter\na{x=\"1 2\"} 1\n");
        let b = "# TYPE b histogram\nb_bucket{le=\"1\"} 1\nb_sum 1\nb_count 1\n";
        assert_eq!(named(Some("name%5B%5D=b")), b);
        assert_eq!(named(Some("name[]=b_more&name[]=none")), "# TYPE b_more gauge\nb_more 2\n");
        assert_eq!(named(Some("name[]=none")), "");
    }
}
