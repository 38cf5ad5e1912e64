from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('sessions_app', '0011_review'),
    ]

    operations = [
        migrations.AddField(
            model_name='providerwatch',
            name='listing_until',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='providerwatch',
            name='next_peek_at',
            field=models.DateTimeField(null=True),
        ),
    ]
