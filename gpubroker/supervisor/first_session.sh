API=http://127.0.0.1:8080/api/v1
cd "$(mktemp -d)"
field() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }

OFFER=$(curl -fsS "$API/inventory?limit=1" | field "['offers'][0]['id']")
curl -fsS "$API/sessions" -H 'Content-Type: application/json' -d '{"consumer_id": "me", "offer_id": "'"$OFFER"'", "workload_type": "training", "reservation_hours": 1}' > created.json
SESSION=$(field "['session']['id']" < created.json)
(umask 077; field "['ssh_private_key']" < created.json > key)

while STATUS=$(curl -fsS "$API/sessions/$SESSION" | tee session.json | field "['status']"); [ "$STATUS" = pending ] || [ "$STATUS" = provisioning ]; do sleep 1; done
echo "$SESSION is $STATUS"
ssh -n -i key -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o LogLevel=ERROR -o UserKnownHostsFile=known_hosts -p "$(field "['ssh_port']" < session.json)" "$(field "['ssh_user']" < session.json)@$(field "['ssh_host']" < session.json)" nvidia-smi

curl -fsS -X DELETE "$API/sessions/$SESSION" && echo
curl -fsS "$API/costs?session_id=$SESSION" && echo
