rpm -ivh '/var/lib/runbook/artifacts/142d46fefba0b729ac63a8b80d5acbfda1cfbfc385a18069e52911702ce28e66/marathon 1.rpm'
