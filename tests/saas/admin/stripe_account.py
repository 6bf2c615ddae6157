"""As much of Stripe as the desk and the audit ask: payments, their refunds with idempotency keys, and disputes."""

import itertools
import time
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from tests.saas.api_harness import StandIn

HOURS = 3600


class StripeAccount:
    """Payments by id. `fails` answers instead of a refund; `lost`: the refund is made, and its answer is an error."""

    def __init__(self):
        self.intents, self.refunds, self.disputes, self.keys = {}, [], [], {}
        self.fails, self.lost = None, False
        self._count = itertools.count(1)
        self.service = StandIn(self._answer)

    @contextmanager
    def running(self):
        with self.service.running():
            self.url = self.service.url
            yield self

    def paid(self, payment, user, credits=10_000, cents=500, currency="usd", age=3 * HOURS):
        metadata = {"fishserve_credits": str(credits), "user_id": str(user), "pack": "small"}
        charge = {"id": f"ch_{payment}", "object": "charge", "amount": cents, "amount_refunded": 0, "disputed": False}
        self.intents[payment] = {
            "id": payment, "object": "payment_intent", "status": "succeeded", "amount_received": cents, "currency": currency, "metadata": metadata,
            "created": int(time.time()) - age, "latest_charge": charge,
        }  # fmt: skip

    def refunded(self, payment, cents):
        self.intents[payment]["latest_charge"]["amount_refunded"] += cents

    def _answer(self, asked):
        path, query = urlsplit(asked.path).path, parse_qs(urlsplit(asked.path).query)
        if path == "/v1/refunds" and asked.method == "POST":
            return self._refund(asked)
        if path == "/v1/refunds":
            return self._list([r for r in self.refunds if r["payment_intent"] == query["payment_intent"][0]], path)
        if path == "/v1/disputes":
            return self._list(self.disputes, path)
        if path == "/v1/payment_intents":
            first, last = (int(query[f"created[{part}]"][0]) for part in ("gte", "lte"))
            return self._list([i for i in self.intents.values() if first <= i["created"] <= last], path)
        if intent := self.intents.get(path.rpartition("/")[2]):
            return 200, intent
        return 404, {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": f"No such object: {path}"}}

    def _list(self, rows, path):
        return 200, {"object": "list", "url": path, "has_more": False, "data": rows}

    def _refund(self, asked):
        form = {name: value[0] for name, value in parse_qs(asked.body.decode()).items()}
        if self.fails:
            return self.fails
        key = asked.headers["idempotency-key"]
        if key not in self.keys:
            payment, cents = form["payment_intent"], int(form["amount"])
            action = form["metadata[fishserve_action]"]
            self.keys[key] = {
                "id": f"re_{next(self._count)}_{payment}", "object": "refund", "amount": cents, "status": "succeeded", "payment_intent": payment,
                "metadata": {"fishserve_action": action},
            }  # fmt: skip
            self.refunds.append(self.keys[key])
            self.refunded(payment, cents)
        return (500, {"error": {"message": "down"}}) if self.lost else (200, self.keys[key])
