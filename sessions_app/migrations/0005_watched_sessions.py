from django.db import migrations, models
from django.db.models.functions import Now


def look_at_all_that_run(apps, schema_editor):
    """Sessions that ran before there were warnings and looks are driven once, and get both from then on."""
    session = apps.get_model('sessions_app', 'Session')
    session.objects.filter(status='running').update(next_check_at=Now())


class Migration(migrations.Migration):

    dependencies = [
        ('sessions_app', '0004_retry_idle_preserve'),
    ]

    operations = [
        migrations.AddField(
            model_name='rental',
            name='door',
            field=models.CharField(choices=[('open', 'our key opens it'), ('doubted', 'it did not answer once'), ('silent', 'it does not answer'), ('locked', 'our key is refused'), ('changed', 'another host key answers')], default='open', max_length=8),
        ),
        migrations.RunPython(look_at_all_that_run, migrations.RunPython.noop),
    ]
