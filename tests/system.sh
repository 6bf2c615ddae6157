#!/usr/bin/env bash
# Installs what the tests need and pip cannot bring, where it is missing and this user may. What stays missing, the tests name at their end.
set -euo pipefail
missing=()
[ -d /usr/share/wordnet ] || missing+=(wordnet-base) # sentences for the training recipe
[ -x /usr/bin/chromium-headless-shell ] || [ -x /usr/bin/chromium ] || missing+=(chromium-headless-shell) # what the pages are tried in
[ -x /usr/bin/node ] || missing+=(nodejs) # runs OpenAI's other client
[ -x /usr/bin/npm ] || missing+=(npm)
[ -x /usr/lib/postgresql/15/bin/postgres ] || missing+=(postgresql-15) # the SaaS layer's database
[ -f /usr/share/postgresql/15/extension/pgtap.control ] || missing+=(postgresql-15-pgtap) # tests of SQL in SQL
[ -x /usr/bin/pg_prove ] || missing+=(libtap-parser-sourcehandler-pgtap-perl) # runs them
[ -f /usr/share/postgresql/15/extension/plpgsql_check.control ] || missing+=(postgresql-15-plpgsql-check) # what `supabase db lint` asks
[ -x /usr/bin/prometheus ] || missing+=(prometheus) # tries the alert rules and the dashboards' queries
[ ${#missing[@]} -eq 0 ] && exit 0
as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
  echo "cannot install ${missing[*]} here: that takes Debian's apt-get and root"
  exit 0
fi
"${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
