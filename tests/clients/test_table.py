"""The table in docs/clients.md is what `make clients` found."""

import json

from tests.clients.run import BEGIN, END, PAGE, RESULTS, table


def test_the_page_has_the_results_of_the_last_run():
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0].strip() == table(json.loads(RESULTS.read_text(encoding="utf-8"))).strip()
