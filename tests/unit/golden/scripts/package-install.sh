yum -y -q install runbook-rehearsal
